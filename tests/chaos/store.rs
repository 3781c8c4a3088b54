//! The store of a round: the embedded engine on disk, served over HTTP by a process that can be killed, or the DynamoDB
//! model with faults, in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inventory_process::ChildProcess;
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store_model::{FaultRule, LatencyProfile, ModelServer, ModelSettings};
use inventory_testkit::server::report_skipped;
use inventory_testkit::small_disk::SmallDisk;
use rustix::process::Resource;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::limit_resource;

/// Directory of the data; its presence makes the test program a store process.
const DIRECTORY_VARIABLE: &str = "CHAOS_STORE_DIRECTORY";

/// Name of the test that is the store process.
const STORE_TEST: &str = "store_process";

const LISTENING: &str = "store listening on ";

/// Bytes of the file system: a round writes some ten MB.
const DISK_BYTES: u64 = 256 << 20;

/// Bytes of one write of the filler.
const FILLER_CHUNK: usize = 64 << 10;

/// Time within which the store process must start.
const START_MAX: Duration = Duration::from_secs(30);

/// The engine on disk, in a process.
pub(crate) struct DiskStore {
    directory: PathBuf,
    /// `None`: no file system could be mounted, so the disk cannot be filled.
    disk: Option<SmallDisk>,
    process: Option<ChildProcess>,
}

/// What the servers share.
pub(crate) enum ChaosStore {
    Disk(DiskStore),
    Model(ModelServer),
}

/// The store and its address, which changes when it is restarted.
pub(crate) struct StoreUnderTest {
    pub(crate) store: ChaosStore,
    pub(crate) address: Arc<Mutex<SocketAddr>>,
}

impl StoreUnderTest {
    /// Starts the engine on a small file system below `directory`.
    pub(crate) async fn start_disk(directory: &Path) -> Self {
        let directory = directory.join("disk");
        std::fs::create_dir(&directory).unwrap();
        let disk = SmallDisk::mount(&directory, DISK_BYTES);
        if disk.is_none() {
            report_skipped("chaos: full disk", "no file system can be mounted");
        }
        let mut store = DiskStore { directory, disk, process: None };
        let address = Arc::new(Mutex::new(store.start_process().await));
        Self { store: ChaosStore::Disk(store), address }
    }

    /// Starts the model with in-region latencies.
    pub(crate) fn start_model(seed: u64) -> Self {
        let settings = ModelSettings {
            profile: LatencyProfile::InRegion,
            is_unlimited: true,
            seed,
            ..ModelSettings::default()
        };
        let model = ModelServer::start(settings).unwrap();
        let address = Arc::new(Mutex::new(model.address()));
        Self { store: ChaosStore::Model(model), address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.store {
            ChaosStore::Disk(_) => "engine on disk",
            ChaosStore::Model(_) => "DynamoDB model",
        }
    }

    pub(crate) fn disk(&mut self) -> Option<&mut DiskStore> {
        match &mut self.store {
            ChaosStore::Disk(disk) => Some(disk),
            ChaosStore::Model(_) => None,
        }
    }

    /// Replaces the faults of the model.
    pub(crate) fn set_model_faults(&self, faults: Vec<FaultRule>) {
        if let ChaosStore::Model(model) = &self.store {
            model.set_faults(faults).unwrap();
        }
    }

    /// SIGKILL of the store process, which starts again after `away`.
    pub(crate) async fn restart(&mut self, away: Duration) {
        let address = self.address.clone();
        let disk = self.disk().expect("the model keeps everything in memory");
        disk.process = None;
        tokio::time::sleep(away).await;
        let started = disk.start_process().await;
        *address.lock().unwrap() = started;
    }
}

impl DiskStore {
    async fn start_process(&mut self) -> SocketAddr {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", STORE_TEST, "--ignored", "--nocapture", "--test-threads", "1"])
            .env(DIRECTORY_VARIABLE, self.directory.join("data"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let process = ChildProcess::spawn(&mut command).unwrap();
        let deadline = Instant::now() + START_MAX;
        let address = loop {
            let out = process.out.text();
            let line = out.split_once(LISTENING).and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((address, _)) = line {
                break address.parse().unwrap();
            }
            let log = process.err.text();
            assert!(Instant::now() < deadline, "the store does not start:\n{out}\n{log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.process = Some(process);
        address
    }

    /// Fills the file system; `None` if it is not a small one. The space is free again when the result is dropped.
    pub(crate) fn fill(&self) -> Option<DiskFiller> {
        self.disk.as_ref()?;
        let path = self.directory.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let chunk = vec![0; FILLER_CHUNK];
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        while std::io::Write::write_all(&mut file, &[0]).is_ok() {}
        Some(DiskFiller(path))
    }

    /// Refuses each write of the engine to its files, or allows them again: a soft limit of file sizes. The kernel
    /// refuses to remount a file system that has files open for writing.
    pub(crate) fn refuse_writes(&self, are_refused: bool) {
        let pid = self.process.as_ref().expect("the store runs").pid();
        limit_resource(pid, Resource::Fsize, are_refused.then_some(0));
    }
}

/// A file that fills a file system; removed when dropped.
pub(crate) struct DiskFiller(PathBuf);

impl Drop for DiskFiller {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The store process: serves the engine until its standard input is closed, which the kernel does when the test ends.
pub(crate) async fn serve_engine() {
    let directory = std::env::var_os(DIRECTORY_VARIABLE);
    let Some(directory) = directory else {
        report_skipped(STORE_TEST, "this test is the store process of the test chaos");
        return;
    };
    // By default the signal of a write beyond the limit ends the process; the write fails all the same.
    let _too_large = signal(SignalKind::from_raw(libc::SIGXFSZ)).unwrap();
    let engine = EmbeddedEngine::start(EngineStorage::Dir(directory.into())).unwrap();
    println!("{LISTENING}{}", engine.address());
    let _ = tokio::io::AsyncReadExt::read(&mut tokio::io::stdin(), &mut [0]).await;
    engine.stop();
}
