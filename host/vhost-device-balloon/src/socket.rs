// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listening Unix sockets that leave nothing behind and step on nobody.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

use log::info;
use thiserror::Error;

/// Why there is no socket at a path.
#[derive(Debug, Error)]
pub enum SocketError {
    #[error("{}: another process listens there", .0.display())]
    InUse(PathBuf),
    #[error("{}: exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("{}: cannot make the socket: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A listening socket. Its path is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// [`SocketError`] if the path is taken or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    info!("{}: removing a stale socket", path.display());
                    fs::remove_file(path).map_err(io)?;
                }
                Err(error) => return Err(io(error)),
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            },
        }
        let socket = UnixListener::bind(path).map_err(io)?;
        socket.set_nonblocking(true).map_err(io)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    /// Takes a waiting connection.
    ///
    /// # Errors
    ///
    /// The system's; `WouldBlock` if none is waiting.
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(stream, _)| stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Listener::bind(&path).unwrap();
    }

    #[test]
    fn a_socket_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _first = Listener::bind(&path).unwrap();
        let second = Listener::bind(&path);
        assert!(matches!(second, Err(SocketError::InUse(_))));
        assert!(path.exists());
    }

    #[test]
    fn a_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        let listener = Listener::bind(&path);
        assert!(matches!(listener, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Listener::bind(Path::new("missing/socket")).unwrap_err();
        assert!(error.to_string().contains("missing/socket"));
    }
}
