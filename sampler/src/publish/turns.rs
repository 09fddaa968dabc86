//! Turns: who is being answered with metrics. So few are at a time that bodies which nobody takes stay few; of those, so few
//! are of one address that whoever opens many connections and reads slowly keeps nobody else waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;

/// Turns at a time.
pub const TURNS: usize = 8;
/// Those of them that one address has.
const OF_ONE: usize = 4;
/// For how long somebody waits for a turn: longer than one lasts ([`super::server::ANSWER_LIMIT`]).
const WAIT_LIMIT: Duration = Duration::from_secs(6);

/// All turns.
pub struct Turns {
    all: Arc<Semaphore>,
    of_peers: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// One turn, until it is dropped.
pub struct Turn {
    _of_peer: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(TURNS)), of_peers: Mutex::default() }
    }
}

impl Turns {
    /// A turn for somebody at this address, in the order in which they ask; `None` if there is none for too long.
    pub async fn take(&self, peer: IpAddr) -> Option<Turn> {
        let of_peer = self.of_peer(peer);
        let taken = async {
            // First, so that nobody waits twice in the way of others.
            let _of_peer = of_peer.acquire_owned().await.ok()?;
            let _of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _of_peer, _of_all })
        };
        tokio::time::timeout(WAIT_LIMIT, taken).await.ok()?
    }

    fn of_peer(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut of_peers = lock(&self.of_peers);
        of_peers.retain(|_, turns| turns.strong_count() != 0);
        if let Some(turns) = of_peers.get(&peer).and_then(Weak::upgrade) {
            return turns;
        }
        let turns = Arc::new(Semaphore::new(OF_ONE));
        of_peers.insert(peer, Arc::downgrade(&turns));
        turns
    }
}
