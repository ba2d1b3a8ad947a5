// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use crate::daemon::DaemonConfig;
use crate::virtio_balloon::feature;
use crate::virtio_balloon::BASE_FEATURES;
use crate::virtio_balloon::VIRTIO_BALLOON_F_DEFLATE_ON_OOM;
use crate::virtio_balloon::VIRTIO_BALLOON_F_MUST_TELL_HOST;
use crate::virtio_balloon::VIRTIO_BALLOON_F_PAGE_BITMAP;
use crate::virtio_balloon::VIRTIO_BALLOON_F_PAGE_POISON;
use crate::virtio_balloon::VIRTIO_BALLOON_F_REPORTING;
use crate::virtio_balloon::VIRTIO_BALLOON_F_STATS_VQ;

/// vhost-user device for memory ballooning by page bitmaps.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub daemon: Option<DaemonArgs>,
}

/// What to do instead of being the device.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Speak to a running device over its control socket.
    Ctl(CtlArgs),
}

/// The device's options.
#[derive(Clone, Debug, Args)]
pub struct DaemonArgs {
    /// Unix socket that the frontend (QEMU) connects to.
    #[arg(long, value_name = "PATH")]
    socket_path: PathBuf,
    /// Unix socket on which the device speaks QMP.
    #[arg(long, value_name = "PATH")]
    control_path: PathBuf,
    /// Offer page bitmaps; without them the guest reports pages by PFN arrays.
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true
    )]
    page_bitmap: Switch,
    /// Offer MUST_TELL_HOST: the guest waits for each deflation to be acknowledged.
    #[arg(long)]
    must_tell_host: bool,
    /// Offer DEFLATE_ON_OOM: the guest may take memory back when it runs out of it.
    #[arg(long)]
    deflate_on_oom: bool,
    /// Offer STATS_VQ: the guest tells how it uses its memory.
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true
    )]
    stats: Switch,
    /// Offer REPORTING: the guest lends its free pages, which are discarded.
    #[arg(long)]
    free_page_reporting: bool,
    /// Offer PAGE_POISON: the guest tells what it fills free pages with.
    #[arg(long)]
    page_poison: bool,
    /// Announce a new target in one write, for frontends that take the beginning of a message for a
    /// broken one, as User-mode Linux does. It may crash QEMU.
    #[arg(long)]
    whole_messages: bool,
    /// Let control clients use the commands for tests.
    #[arg(long, hide = true)]
    test_commands: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// The client's options.
#[derive(Clone, Debug, Args)]
pub struct CtlArgs {
    /// Unix socket on which the device speaks QMP.
    #[arg(long, value_name = "PATH")]
    pub control_path: PathBuf,
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What the client can do.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Set how much memory the guest keeps.
    Set {
        /// Bytes, or a number with a suffix: K, M, G or T (powers of 1024).
        #[arg(value_parser = parse_size)]
        size: u64,
        /// Wait until the guest is there, with a progress bar.
        #[arg(long)]
        wait: bool,
    },
    /// Print how much memory the guest keeps, in bytes.
    Query,
    /// Print the device's counters as JSON.
    Counters,
    /// Print the guest's statistics as JSON.
    Stats {
        /// Have the guest asked for them every SECONDS from now on; 0 for no longer.
        #[arg(long, value_name = "SECONDS")]
        poll: Option<u32>,
    },
    /// Print how much memory the guest keeps, now and at each change.
    Watch,
    /// End the device.
    Quit,
}

impl From<DaemonArgs> for DaemonConfig {
    fn from(args: DaemonArgs) -> Self {
        let optional = [
            (args.page_bitmap == Switch::On, VIRTIO_BALLOON_F_PAGE_BITMAP),
            (args.must_tell_host, VIRTIO_BALLOON_F_MUST_TELL_HOST),
            (args.deflate_on_oom, VIRTIO_BALLOON_F_DEFLATE_ON_OOM),
            (args.stats == Switch::On, VIRTIO_BALLOON_F_STATS_VQ),
            (args.free_page_reporting, VIRTIO_BALLOON_F_REPORTING),
            (args.page_poison, VIRTIO_BALLOON_F_PAGE_POISON),
        ];
        let features = optional
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .fold(BASE_FEATURES, |features, (_, bit)| features | feature(bit));
        Self {
            socket_path: args.socket_path,
            control_path: args.control_path,
            features,
            whole_messages: args.whole_messages,
            test_commands: args.test_commands,
        }
    }
}

/// Parses a size in bytes, with an optional suffix.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        suffix => return Err(format!("unknown suffix '{suffix}' (use K, M, G or T)")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|error| format!("'{digits}' is no whole number: {error}"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("a guest cannot do without memory".into()),
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err("too large".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn config(options: &str) -> DaemonConfig {
        let cli = parse(&format!("x --socket-path s --control-path c {options}")).unwrap();
        cli.daemon.unwrap().into()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn features_follow_the_options() {
        let bitmap = feature(VIRTIO_BALLOON_F_PAGE_BITMAP);
        let tell = feature(VIRTIO_BALLOON_F_MUST_TELL_HOST);
        let oom = feature(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
        let stats = feature(VIRTIO_BALLOON_F_STATS_VQ);
        let poison = feature(VIRTIO_BALLOON_F_PAGE_POISON);
        let report = feature(VIRTIO_BALLOON_F_REPORTING);
        let usual = BASE_FEATURES | bitmap | stats;
        assert_eq!(config("").features, usual);
        assert_eq!(
            config("--page-bitmap=off --stats=off").features,
            BASE_FEATURES
        );
        assert_eq!(
            config("--page-bitmap on --must-tell-host --deflate-on-oom").features,
            usual | tell | oom
        );
        assert_eq!(config("--free-page-reporting").features, usual | report);
        assert_eq!(config("--page-poison").features, usual | poison);
    }

    #[test]
    fn messages_are_whole_on_request() {
        assert!(!config("").whole_messages);
        assert!(config("--whole-messages").whole_messages);
    }

    #[test]
    fn commands_for_tests_are_there_on_request_and_not_advertised() {
        assert!(!config("").test_commands);
        assert!(config("--test-commands").test_commands);
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("--whole-messages") && !help.contains("--test-commands"));
    }

    #[test]
    fn the_daemon_needs_both_paths() {
        assert!(parse("x").is_err());
        assert!(parse("x --socket-path s").is_err());
        assert!(parse("x --control-path c").is_err());
        assert_eq!(config("").socket_path, PathBuf::from("s"));
        assert_eq!(config("").control_path, PathBuf::from("c"));
    }

    #[test]
    fn the_client_needs_its_path_alone() {
        assert!(parse("x ctl query").is_err());
        let cli = parse("x ctl --control-path c set 512M --wait").unwrap();
        let Some(Command::Ctl(args)) = cli.command else {
            panic!("no ctl command");
        };
        assert_eq!(args.control_path, PathBuf::from("c"));
        assert!(matches!(
            args.command,
            CtlCommand::Set {
                size: 0x2000_0000,
                wait: true
            }
        ));
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("3M"), Ok(3 << 20));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
        for bad in [
            "",
            "G",
            "0",
            "1.5G",
            "-1",
            "1X",
            "1GG",
            "99999999999T",
            "16777215T",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
