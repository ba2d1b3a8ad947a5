// SPDX-License-Identifier: GPL-2.0-only

//! Files whose every byte is known: pseudo-random data that follows from a seed.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{bail, Context, Result};

const CHUNK: usize = 256 << 10;

/// The data of a seed, chunk by chunk.
struct Data {
    random: fastrand::Rng,
    left: u64,
    chunk: Vec<u8>,
}

impl Data {
    fn new(bytes: u64, seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            left: bytes,
            chunk: vec![0; CHUNK],
        }
    }

    fn next(&mut self) -> Option<&[u8]> {
        let size = self.left.min(CHUNK as u64) as usize;
        self.left -= size as u64;
        self.random.fill(&mut self.chunk[..size]);
        (size > 0).then_some(&self.chunk[..size])
    }
}

/// Writes the file.
pub fn make(path: &str, bytes: u64, seed: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| path.to_owned())?;
    let mut data = Data::new(bytes, seed);
    while let Some(chunk) = data.next() {
        file.write_all(chunk).with_context(|| path.to_owned())?;
    }
    Ok(())
}

/// Fails unless the file is what [`make`] wrote.
pub fn verify(path: &str, bytes: u64, seed: u64) -> Result<()> {
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let size = file.metadata()?.len();
    if size != bytes {
        bail!("{path} has {size} bytes instead of {bytes}");
    }
    let mut data = Data::new(bytes, seed);
    let mut found = vec![0; CHUNK];
    let mut offset = 0;
    while let Some(expected) = data.next() {
        let found = &mut found[..expected.len()];
        file.read_exact(found).with_context(|| path.to_owned())?;
        if let Some(at) = expected
            .iter()
            .zip(found.iter())
            .position(|(expected, found)| expected != found)
        {
            bail!("{path} is damaged at byte {}", offset + at as u64);
        }
        offset += expected.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn one_changed_byte_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let path = path.to_str().unwrap();
        let bytes = 3 * CHUNK as u64 + 5;
        make(path, bytes, 42).unwrap();
        verify(path, bytes, 42).unwrap();
        assert!(verify(path, bytes, 43).is_err());
        assert!(verify(path, bytes - 1, 42).is_err());

        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, bytes - 2).unwrap();
        file.write_all_at(&[byte[0] ^ 1], bytes - 2).unwrap();
        let error = verify(path, bytes, 42).unwrap_err().to_string();
        assert!(error.contains(&format!("byte {}", bytes - 2)), "{error}");
    }
}
