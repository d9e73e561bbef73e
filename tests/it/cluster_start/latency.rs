//! The times of requests over rolls, beside those of the same clients while no worker changes: `ROUNDS` rolls (1).
//!
//! Before each roll the times of a window are taken that is as long as the roll before, so that other load of the machine,
//! which comes and goes, meets both. The clients make some 1,300 requests a second (with `CLIENTS=500`): they leave cores
//! idle, because at full load a request waits for the clients' threads, and not for a worker. What they and all programs
//! together take of the cores is printed. Debug builds on busy machines print the ratio of the 99th percentiles; `just rolls`
//! limits it in a release build, by `ROLLS_LIMIT`.

use std::time::Duration;

use phalanx_testkit::print;
use tokio::time::{Instant, sleep};

use super::Workers;
use crate::cluster::tasks::harness::setting;
use crate::drain::clients::{Class, Clients};
use crate::drain::load::{Outcomes, TOUR};

/// The window before the first roll.
const FIRST: Duration = Duration::from_secs(2);

/// The classes of the load, and their clients.
fn classes() -> [(Class, usize); 3] {
    let keep_alive = [Class::KeepAlive(40), Class::KeepAlive(2000)].map(|class| (class, class.clients()));
    [keep_alive[0], keep_alive[1], (Class::New, 1)]
}

/// The time that cores have spent, in ticks of the system's clock.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
    /// By this process, which is that of the clients.
    own: u64,
}

impl Ticks {
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap();
        let (machine, own) = (read("/proc/stat"), read("/proc/self/stat"));
        let numbers = |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        // user nice system idle iowait irq softirq steal
        let machine = numbers(machine.lines().next().unwrap());
        let own: Vec<&str> = own.rsplit_once(") ").unwrap().1.split(' ').collect();
        let own = own[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum(); // utime, stime
        Self { all: machine[..8].iter().sum(), idle: machine[3] + machine[4], own }
    }
}

/// The requests of a window.
struct Window {
    /// By class; the last are all of them.
    p99: [Duration; 4],
    requests: usize,
    took: Duration,
    /// The shares of all cores that were busy, and that the clients took.
    busy: f64,
    own: f64,
}

impl Window {
    /// Takes the times of the requests that end while something runs.
    async fn over(clients: &[Clients; 3], run: impl Future<Output = ()>) -> Self {
        let _ = clients.each_ref().map(Clients::take_times); // of the time before
        let (begin, before) = (Instant::now(), Ticks::now());
        run.await;
        let (took, after) = (begin.elapsed(), Ticks::now());
        let [one, other, third] = clients.each_ref().map(Clients::take_times);
        let all = [&one[..], &other, &third].concat();
        let requests = all.len();
        let share = |ticks: u64| ticks as f64 / (after.all - before.all).max(1) as f64;
        Self {
            p99: [one, other, third, all].map(p99),
            requests,
            took,
            busy: 1.0 - share(after.idle - before.idle),
            own: share(after.own - before.own),
        }
    }

    fn print(&self, name: &str) {
        let Self { p99, requests, took, busy, own } = self;
        print(format_args!(
            "{name}: {requests} requests in {took:.1?}, p99 {:.2?} {:.2?} {:.2?}, of all {:.2?}; {:.0} % of the cores busy, \
             {:.0} % by the clients",
            p99[0],
            p99[1],
            p99[2],
            p99[3],
            busy * 100.0,
            own * 100.0
        ));
    }
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

fn median(windows: &[Window], of: usize) -> Duration {
    let mut each: Vec<Duration> = windows.iter().map(|window| window.p99[of]).collect();
    each.sort_unstable();
    each[each.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_take_as_long_while_workers_are_rolled_as_before() {
    let limit: Option<f64> = std::env::var("ROLLS_LIMIT").ok().map(|limit| limit.parse().expect("a number"));
    let workers = Workers::start(3, &[]).await;
    let clients = classes().map(|(class, count)| Clients::start(class, count, workers.parent.addr, TOUR));
    for (clients, (_, count)) in clients.iter().zip(classes()) {
        clients.until(2 * count).await;
    }
    let (mut before, mut over, mut length) = (Vec::new(), Vec::new(), FIRST);
    for round in 1..=setting("ROUNDS", 1) {
        let quiet = Window::over(&clients, sleep(length)).await; // requests are counted meanwhile
        let roll = async {
            let output = workers.command(&["cluster", "roll"]).await;
            assert!(output.status.success(), "{output:?}\n{}", workers.parent.stderr());
        };
        let rolled = Window::over(&clients, roll).await;
        length = rolled.took;
        quiet.print(&format!("before roll {round}"));
        rolled.print(&format!("over roll {round}"));
        before.push(quiet);
        over.push(rolled);
    }
    for (of, name) in classes().iter().map(|(class, clients)| format!("{class:?}, {clients} clients")).enumerate() {
        print_ratio(&name, &before, &over, of);
    }
    let ratio = print_ratio("all", &before, &over, 3);
    for clients in clients {
        let outcomes = Outcomes::of_all(clients).await;
        assert_eq!((outcomes.failed, outcomes.refused), (0, 0), "{}", workers.parent.stderr());
    }
    workers.stop().await;
    assert!(limit.is_none_or(|limit| ratio <= limit), "{ratio:.2} is more than {limit:?}");
}

/// Prints the medians of the percentiles of a class, and returns their ratio.
fn print_ratio(name: &str, before: &[Window], over: &[Window], of: usize) -> f64 {
    let (before, over) = (median(before, of), median(over, of));
    let ratio = over.as_secs_f64() / before.as_secs_f64();
    print(format_args!("p99 of {name}: {before:.2?} before rolls, {over:.2?} over them: {ratio:.2}"));
    ratio
}
