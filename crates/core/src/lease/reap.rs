//! The reaper: gives back the jobs that a dead generation ran, removes the members that it left behind, and announces their
//! leaves.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{LeaseParts, RENEWAL};
use crate::backend::{BackendError, FetchedJob, GiveBackOutcome, LeaseStatus, LeaveBatch, TaskStore};
use crate::id::Generation;
use crate::job::worker_name;
use crate::metrics::bound_reached;

/// Dead generations that one node reaps at once.
const REAPED_AT_ONCE: usize = 32;

/// Leaves of one generation whose hooks run at once.
const HOOKS_AT_ONCE: usize = 32;

/// Reaps dead generations.
pub(super) struct LeaseReaper {
    parts: LeaseParts,
    /// The generations that this node reaps now.
    reaping: Arc<Mutex<HashSet<Generation>>>,
}

/// The progress of a reap.
enum Progress {
    Announced(usize),
    Done,
    ClaimLost,
}

impl LeaseReaper {
    pub(super) fn new(parts: LeaseParts) -> Self {
        Self { parts, reaping: Arc::default() }
    }

    /// Starts to reap the expired generations, unless that is in progress. Each has a task of its own: none waits for the
    /// hooks of another's members.
    pub(super) fn spawn(&self, status: &LeaseStatus) {
        for &dead in &status.expired {
            if !self.try_start(dead) {
                continue;
            }
            let (parts, reaping, seen_us) = (self.parts.clone(), self.reaping.clone(), status.now_us);
            self.parts.shutdown.spawn_own(async move {
                reap(&parts, dead, seen_us).await;
                lock(&reaping).remove(&dead);
            });
        }
    }

    /// Whether this node starts to reap that generation. One beyond the bound is reported again by the next renewal.
    fn try_start(&self, dead: Generation) -> bool {
        let mut reaping = lock(&self.reaping);
        if reaping.contains(&dead) {
            return false;
        }
        if reaping.len() >= REAPED_AT_ONCE {
            bound_reached("reaped_at_once");
            return false;
        }
        reaping.insert(dead)
    }
}

fn lock(reaping: &Mutex<HashSet<Generation>>) -> MutexGuard<'_, HashSet<Generation>> {
    reaping.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps a generation whose lease expired, unless another node does.
///
/// If this node is killed half-way, its claim expires, and the next reaper continues with the same list of leaves.
async fn reap(parts: &LeaseParts, dead: Generation, seen_us: u64) {
    let by = parts.identity.generation();
    let worker = match &parts.tasks {
        Some(_) => worker_of(parts, dead).await,
        None => String::new(),
    };
    match parts.membership.claim(by, dead, seen_us).await {
        Ok(true) => warn!(%dead, "a node died: reaping it"),
        Ok(false) => return,
        Err(error) => return warn!(%error, %dead, "not reaped yet"),
    }
    // Before the leaves, whose hooks may take long.
    if let Some(tasks) = &parts.tasks {
        match give_back(parts, &**tasks, by, dead, &worker).await {
            // Before Actionhero's schedulers take its job for one that is to fail.
            Ok(true) => {
                if let Err(error) = tasks.remove_worker(dead).await {
                    warn!(%error, %dead, "resque's tools still show the worker of the dead node");
                }
            }
            Ok(false) => return info!(%dead, "another node continues the reap"),
            // The members leave all the same; the claim expires, and the next reaper finds the jobs.
            Err(error) => warn!(%error, %dead, "jobs of the dead node are not given back yet"),
        }
    }
    let mut leaves = 0;
    loop {
        match announce_batch(parts, by, dead).await {
            Ok(Progress::Announced(count)) => leaves += count,
            Ok(Progress::Done) => break,
            Ok(Progress::ClaimLost) => return info!(%dead, leaves, "another node continues the reap"),
            Err(error) => return warn!(%error, %dead, leaves, "the reap stopped half-way"),
        }
    }
    metrics::counter!("phalanx_generations_reaped_total").increment(1);
    info!(%dead, leaves, "reaped");
}

/// The name of the worker of a node that is about to be reaped.
async fn worker_of(parts: &LeaseParts, dead: Generation) -> String {
    let nodes = parts.membership.nodes().await.unwrap_or_default();
    let record = nodes.into_iter().find(|node| node.generation == dead || node.earlier.contains(&dead));
    worker_name(record.as_ref().map_or("unknown", |node| &node.id), dead)
}

/// Gives the jobs that the dead node ran back to their queues; `false` if the claim was lost.
async fn give_back(
    parts: &LeaseParts,
    tasks: &dyn TaskStore,
    by: Generation,
    dead: Generation,
    worker: &str,
) -> Result<bool, BackendError> {
    loop {
        match tasks.give_back(by, dead, worker).await? {
            GiveBackOutcome::Some(convicted) => convicted.iter().for_each(report_convicted),
            GiveBackOutcome::Done => return Ok(true),
            GiveBackOutcome::ClaimLost => return Ok(false),
        }
        if !parts.membership.renew_claim(by, dead).await? {
            return Ok(false);
        }
    }
}

fn report_convicted(job: &FetchedJob) {
    metrics::counter!("phalanx_tasks_convicted_total").increment(1);
    let (queue, counters) = (&job.attempt.queue, job.attempt.counters);
    warn!(%queue, deaths = counters.deaths, stalls = counters.stalls, "a job whose nodes were reaped is among the failed ones");
}

/// Announces a batch of leaves.
async fn announce_batch(parts: &LeaseParts, by: Generation, dead: Generation) -> Result<Progress, BackendError> {
    let leaves = match parts.membership.next_leaves(by, dead).await? {
        LeaveBatch::Members(leaves) => leaves,
        LeaveBatch::Done => return Ok(Progress::Done),
        LeaveBatch::ClaimLost => return Ok(Progress::ClaimLost),
    };
    let claim_lost = async {
        loop {
            sleep(RENEWAL).await;
            if !parts.membership.renew_claim(by, dead).await.unwrap_or(true) {
                return;
            }
        }
    };
    tokio::select! {
        announced = parts.rooms.on_reaped(&leaves, HOOKS_AT_ONCE) => announced?,
        () = claim_lost => return Ok(Progress::ClaimLost),
    }
    let is_ours = parts.membership.acknowledge_leaves(by, dead, leaves.len()).await?;
    Ok(if is_ours { Progress::Announced(leaves.len()) } else { Progress::ClaimLost })
}
