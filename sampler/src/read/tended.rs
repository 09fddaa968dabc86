//! A reader whose slots are looked after between its snapshots.
//!
//! Snapshots are as far apart as whoever measures wants windows long. The slots of cgroups that are gone cannot wait for
//! that: where many come and go, the dead ones would hold all slots, and the living would have to share one. So a thread
//! asks the reader to [`Reader::tend`] them every [`QUIET`]. A slot is free three of these after the last count at the
//! latest: of `S` slots (`--slots`, one of which is for what has none), `L` of them held by the living, `(S − 1 − L) ÷ 3`
//! cgroups a second can come and go, on a host that takes a snapshot in less than that: there is no look while one is
//! taken. Those that are more are counted together until there is room, and their number is a
//! loss of its own.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::Reader;
use super::slots::QUIET;

/// A reader, and the thread that tends its slots until this is dropped.
pub struct Tended {
    reader: Arc<Mutex<Reader>>,
    /// The thread, and what it ends by.
    tending: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Tended {
    /// Tends the slots of a reader from now on, with the privileges of the calling thread.
    pub fn new(reader: Reader) -> io::Result<Self> {
        let reader = Arc::new(Mutex::new(reader));
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("slots".to_owned()).spawn({
            let reader = reader.clone();
            move || {
                while stopped.recv_timeout(QUIET) == Err(RecvTimeoutError::Timeout) {
                    lock(&reader).tend();
                }
            }
        })?;
        Ok(Self { reader, tending: Some((stop, thread)) })
    }

    /// The reader, which is not tended meanwhile.
    pub fn reader(&self) -> MutexGuard<'_, Reader> {
        lock(&self.reader)
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.tending.take() {
            drop(stop);
            // One that has panicked has said so, and whoever asks for the reader hears of it.
            let _ = thread.join();
        }
    }
}

/// # Panics
///
/// If somebody has panicked who had the reader: what has been counted since is not whole.
fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(|_| panic!("the reader is left half-way by a panic"))
}
