//! Load on a server: clients of every [`Class`] at once.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use phalanx_testkit::print;
use tempfile::TempDir;
use tokio::time::timeout;

use super::clients::{Class, Clients, Targets};

/// The number of classes.
const CLASSES: usize = Class::ALL.len();

/// A limit for the wait for responses; no figure.
const SOON: Duration = Duration::from_secs(40);

/// What they request of a `tour`; the download needs the folder of [`tour_files`].
pub(crate) const TOUR: Targets = Targets {
    short: "/api/randomNumber",
    slow: "/api/sleepTest?sleepDuration=300",
    download: "/large.txt",
    upload: "/api/echo",
};

/// The clients of all classes.
#[derive(Debug)]
pub(crate) struct Load([Clients; CLASSES]);

/// The ends of the requests of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) complete: usize,
    pub(crate) failed: usize,
    /// The clients that were refused.
    pub(crate) refused: usize,
}

impl Load {
    pub(crate) fn start(addr: SocketAddr, targets: Targets) -> Self {
        Self(Class::ALL.map(|class| Clients::start(class, class.clients(), addr, targets)))
    }

    /// Puts load on a `tour` whose folder of public files is that of [`tour_files`].
    pub(crate) fn on_tour(addr: SocketAddr) -> Self {
        Self::start(addr, TOUR)
    }

    /// Waits until each class has got so many more responses for each of its clients.
    pub(crate) async fn until_more(&self, each: usize) {
        let before = self.outcomes();
        let more = async {
            for ((class, clients), before) in Class::ALL.iter().zip(&self.0).zip(before) {
                clients.until(before.complete + class.clients() * each).await;
            }
        };
        timeout(SOON, more).await.expect("each class gets responses");
    }

    /// The outcomes so far, by class.
    pub(crate) fn outcomes(&self) -> [Outcomes; CLASSES] {
        self.0.each_ref().map(Outcomes::of)
    }

    /// Lets each client end after its request, and waits for that.
    pub(crate) async fn end(self) -> [Outcomes; CLASSES] {
        self.0.iter().for_each(Clients::end);
        self.ended().await
    }

    /// Waits until each client was refused.
    pub(crate) async fn ended(mut self) -> [Outcomes; CLASSES] {
        for class in &mut self.0 {
            class.ended().await;
        }
        self.outcomes()
    }
}

impl Outcomes {
    /// Those of these clients so far.
    pub(crate) fn of(clients: &Clients) -> Self {
        let counts = &clients.counts;
        let [complete, failed, refused] =
            [&counts.complete, &counts.failed, &counts.refused].map(|count| count.load(Relaxed));
        Self { complete, failed, refused }
    }

    /// Lets the clients end, each after its request; returns the outcomes of all.
    pub(crate) async fn of_all(mut clients: Clients) -> Self {
        clients.end();
        clients.ended().await;
        Self::of(&clients)
    }

    /// Prints those of each class; returns the sum.
    pub(crate) fn print(by_class: [Self; CLASSES]) -> Self {
        let mut sum = Self::default();
        for (class, outcomes) in Class::ALL.iter().zip(by_class) {
            let Self { complete, failed, refused } = outcomes;
            print(format_args!(
                "{class:?}, {} clients: {complete} responses, {failed} failed, {refused} refused",
                class.clients()
            ));
            sum.add(outcomes);
        }
        sum
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.complete += other.complete;
        self.failed += other.failed;
        self.refused += other.refused;
    }
}

/// A folder with the file that the clients download.
pub(crate) fn tour_files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large.txt"), vec![b'a'; 4 << 20]).unwrap();
    folder
}
