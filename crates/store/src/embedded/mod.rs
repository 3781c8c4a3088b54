//! Embedded engine of `dev` and `demo`: a DynamoDB-compatible database in this process, on its own thread,
//! reached over loopback HTTP by the same client as DynamoDB.
//!
//! On disk it is SQLite in write-ahead mode with `synchronous = FULL`: every commit is synced before it is
//! answered. Its request tokens are in memory only: after a restart, a transaction that is sent again under its old
//! token is decided by its conditions alone.
//!
//! Not here: tables, the store client.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use dynoxide::Database;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::limits;

/// The database's file inside its directory.
pub(crate) const DATABASE_FILE: &str = "inventory.sqlite";

/// Locked exclusively while an engine runs on the directory.
pub(crate) const LOCK_FILE: &str = "inventory.lock";

/// Where the data is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineStorage {
    /// In memory, lost when the engine stops.
    Memory,
    /// In this directory, created if it is missing; survives restart and kill.
    Dir(PathBuf),
}

/// Why the engine did not start.
#[derive(Debug, Error)]
pub enum EmbeddedEngineError {
    #[error("the data directory {dir} cannot be written: {why}; choose another with --data DIR, or --memory", dir = dir.display())]
    NotWritable { dir: PathBuf, why: io::Error },
    #[error("the data directory {dir} is in use by another process ({holder}); stop it, or choose another with --data DIR", dir = dir.display())]
    InUse { dir: PathBuf, holder: String },
    #[error("the database {path} cannot be opened: {why}", path = path.display())]
    Database { path: PathBuf, why: String },
    #[error("the embedded engine could not start: {0}")]
    Start(#[from] io::Error),
}

/// A running engine. Dropping it stops it and waits until its data is closed.
#[derive(Debug)]
pub struct EmbeddedEngine {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Released last, when nothing uses the directory any more.
    _lock: Option<File>,
}

impl EmbeddedEngine {
    /// Opens the data and serves it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// See [`EmbeddedEngineError`]; no thread is left running.
    pub fn start(data: EngineStorage) -> Result<Self, EmbeddedEngineError> {
        let (database, lock) = match &data {
            EngineStorage::Memory => (open(Path::new(":memory:"), Database::memory)?, None),
            EngineStorage::Dir(dir) => {
                let lock = lock(dir)?;
                let path = dir.join(DATABASE_FILE);
                let file = || Database::new(&path.to_string_lossy());
                (open(&path, file)?, Some(lock))
            }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("embedded-engine".to_owned())
            .spawn(move || serve(&runtime, listener, database, stopped))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread), _lock: lock })
    }

    /// Address of the HTTP endpoint.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes requests in flight, for at most [`limits::ENGINE_STOP_TIMEOUT`], and closes the data.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for EmbeddedEngine {
    fn drop(&mut self) {
        // The receiver is gone only if the thread has already ended.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            // A panic of the engine's thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn serve(
    runtime: &tokio::runtime::Runtime,
    listener: TcpListener,
    database: Database,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
            return;
        };
        let (stopping, mut is_stopping) = oneshot::channel();
        let shutdown = async move {
            // An error means that the engine was dropped: stop as well.
            let _ = stopped.await;
            let _ = stopping.send(());
        };
        let serving = dynoxide::server::serve_with_shutdown(listener, database, shutdown);
        let overdue = async {
            let _ = (&mut is_stopping).await;
            tokio::time::sleep(limits::ENGINE_STOP_TIMEOUT).await;
        };
        tokio::select! {
            _ = serving => {}
            () = overdue => {}
        }
    });
    // Dropping the runtime at the end of this function cancels the rest and closes the database.
}

fn open<E: std::fmt::Display>(
    path: &Path,
    open: impl FnOnce() -> Result<Database, E>,
) -> Result<Database, EmbeddedEngineError> {
    open().map_err(|error| EmbeddedEngineError::Database {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

/// Creates the directory and locks it. The kernel releases the lock with the process, however it ends.
fn lock(dir: &Path) -> Result<File, EmbeddedEngineError> {
    let not_writable = |why| EmbeddedEngineError::NotWritable { dir: dir.to_owned(), why };
    std::fs::create_dir_all(dir).map_err(not_writable)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder is shown if it can be read; the error does not depend on it.
            let _ = file.take(64).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "unknown".to_owned(),
                pid => format!("pid {pid}"),
            };
            let dir = dir.to_owned();
            return Err(EmbeddedEngineError::InUse { dir, holder });
        }
        Err(TryLockError::Error(why)) => return Err(not_writable(why)),
    }
    file.set_len(0).map_err(not_writable)?;
    writeln!(file, "{}", std::process::id()).map_err(not_writable)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn second_engine_on_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = EngineStorage::Dir(dir.path().join("made/on/demand"));
        let first = EmbeddedEngine::start(data.clone()).unwrap();
        let error = EmbeddedEngine::start(data.clone()).unwrap_err();
        let own_pid = format!("pid {}", std::process::id());
        assert!(error.to_string().contains(&own_pid), "{error}");
        first.stop();
        EmbeddedEngine::start(data).unwrap();
    }

    #[test]
    fn unusable_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("below-a-file");
        let error = EmbeddedEngine::start(EngineStorage::Dir(dir)).unwrap_err();
        assert!(matches!(error, EmbeddedEngineError::NotWritable { .. }), "{error}");
        assert!(error.to_string().contains("below-a-file"), "{error}");
    }

    #[test]
    fn file_that_is_not_a_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(DATABASE_FILE), b"not a database at all").unwrap();
        let error = EmbeddedEngine::start(EngineStorage::Dir(dir.path().to_owned())).unwrap_err();
        assert!(matches!(error, EmbeddedEngineError::Database { .. }), "{error}");
        assert!(error.to_string().contains(DATABASE_FILE), "{error}");
    }

    #[test]
    fn stopped_engine_does_not_listen() {
        let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
        let address = engine.address();
        std::net::TcpStream::connect(address).unwrap();
        engine.stop();
        std::net::TcpStream::connect(address).unwrap_err();
    }
}
