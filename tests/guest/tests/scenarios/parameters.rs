//! The driver's parameters, which can be changed while it runs.

use std::path::Path;

use anyhow::{ensure, Result};
use guest_tests::vm::{Setup, Vm};

const PARAMETERS: &str = "/sys/module/virtio_balloon_bmap/parameters";

/// They can be read and written, and nonsense is refused.
pub fn parameters(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    for (name, default) in [("oom_pages", "256"), ("floor_mib", "0")] {
        let file = format!("{PARAMETERS}/{name}");
        let shown = vm.guest.shell(&format!("cat {file}"))?;
        ensure!(shown.trim() == default, "{name} is {shown} at first");
        for (value, good) in [
            ("4096", true),
            ("0", true),
            ("7", true),
            ("-1", false),
            ("4294967296", false),
            ("many", false),
        ] {
            let written = vm.guest.try_shell(&format!("echo {value} > {file}"))?;
            ensure!((written.status == 0) == good, "{name}={value}: {written:?}");
        }
        let shown = vm.guest.shell(&format!("cat {file}"))?;
        ensure!(shown.trim() == "7", "{name} is {shown} now");
    }
    vm.finish()
}

/// Sets a parameter.
pub fn set_parameter(vm: &mut Vm, name: &str, value: u64) -> Result<()> {
    vm.guest
        .shell(&format!("echo {value} > {PARAMETERS}/{name}"))
        .map(|_| ())
}
