//! The names of what tasks keep in Redis: resque's keys, which its tools read, and ours beside them.

use phalanx_core::Generation;

use super::Keys;

/// Resque's keys.
impl Keys {
    /// The names of queues: a set.
    pub(crate) fn queues(&self) -> String {
        self.resque("queues")
    }

    /// The start of the names of lists: the jobs of a queue that did not run yet, as they were enqueued.
    pub(crate) fn ready(&self) -> String {
        self.resque("queue:")
    }

    /// The seconds at which foreign delayed jobs are due: a sorted set.
    pub(crate) fn schedule(&self) -> String {
        self.resque("delayed_queue_schedule")
    }

    /// The start of the names of lists: the foreign jobs that are due at a second.
    pub(crate) fn delayed_at(&self) -> String {
        self.resque("delayed:")
    }

    /// The start of the names of sets: the seconds at which a foreign job, given by its text, is due.
    pub(crate) fn timestamps(&self) -> String {
        self.resque("timestamps:")
    }

    /// The records of failed jobs: a list.
    pub(crate) fn failed(&self) -> String {
        self.resque("failed")
    }

    /// The number of jobs that succeeded.
    pub(crate) fn processed(&self) -> String {
        self.resque("stat:processed")
    }

    /// The number of jobs that failed.
    pub(crate) fn failures(&self) -> String {
        self.resque("stat:failed")
    }

    /// The workers, each with its queues: a set.
    pub(crate) fn workers(&self) -> String {
        self.resque("workers")
    }

    /// The start of the names of what is known of a worker, given by its name and its queues.
    pub(crate) fn worker(&self) -> String {
        self.resque("worker:")
    }

    /// The start of the names of pings, each of a worker given by its name: a JSON that expires.
    pub(crate) fn worker_ping(&self) -> String {
        self.resque("worker:ping:")
    }

    /// The cluster whose nodes use this prefix; it expires.
    pub(crate) fn prefix_owner(&self) -> String {
        self.resque("phalanx:cluster")
    }

    fn resque(&self, name: &str) -> String {
        [&self.tasks_prefix, name].concat()
    }
}

/// Our own keys.
impl Keys {
    /// The start of the names of lists: the jobs of a queue that ran before, `<attempts> <deaths> <stalls> <job>`.
    pub(crate) fn again(&self) -> String {
        self.own("again:")
    }

    /// The start of the names of lists: the jobs of a queue that may be what kills nodes, in the same form.
    pub(crate) fn suspects(&self) -> String {
        self.own("suspects:")
    }

    /// The jobs that are due later: a sorted set of ids, by ms.
    pub(crate) fn delayed(&self) -> String {
        self.own("delayed")
    }

    /// Those jobs: a hash from the id to `<queue> <attempts> <deaths> <stalls> <job>`.
    pub(crate) fn delayed_jobs(&self) -> String {
        self.own("delayed:jobs")
    }

    /// The node that moves delayed jobs.
    pub(crate) fn promoter(&self) -> String {
        self.own("promoter")
    }

    /// The periodic tasks: a hash from the name to `<last ms> <since µs> <seen µs> <schedule>`.
    pub(crate) fn ticks(&self) -> String {
        self.own("ticks")
    }

    /// The attempts of a generation: a hash from `<token> <queue> <attempts> <deaths> <stalls>` to the job.
    pub(crate) fn running(&self, generation: Generation) -> String {
        [&self.running_of(), generation.as_str()].concat()
    }

    /// The start of the names of those hashes.
    pub(crate) fn running_of(&self) -> String {
        self.own("running:")
    }

    /// Set for a day if the node of a reaped generation runs on.
    pub(crate) fn returned(&self, generation: Generation) -> String {
        [&self.own("returned:"), generation.as_str()].concat()
    }

    /// The ids of the jobs for which the reap of a generation counted as a death: a set, for a day.
    pub(crate) fn deaths_by(&self, generation: Generation) -> String {
        [&self.own("deaths:"), generation.as_str()].concat()
    }

    /// The start of the names of numbers: how many deaths of a job, given by its id, were stalls. Each lasts a day.
    pub(crate) fn stalls_of(&self) -> String {
        self.own("stalls:")
    }

    /// The generations that run jobs: a sorted set, by the µs at which they last said so.
    pub(crate) fn runners(&self) -> String {
        self.own("runners")
    }

    /// The start of the names of sorted sets: the generations that serve a queue, by the µs at which they last said so.
    pub(crate) fn serving(&self) -> String {
        self.own("serving:")
    }

    /// The start of the names of hashes: of a queue with a limit, how many attempts each generation runs.
    pub(crate) fn held(&self) -> String {
        self.own("held:")
    }

    /// The start of the names of numbers: of a queue with a rate, the µs until which it is paid.
    pub(crate) fn rates(&self) -> String {
        self.own("rate:")
    }

    /// The start of the names of sorted sets: the keys by which jobs of a queue take turns, by the turns that they have had. With a
    /// blank and a key behind it, such a name is that of the list of these jobs, in the form of those that ran before.
    pub(crate) fn fair(&self) -> String {
        self.own("fair:")
    }

    /// The classes of parked jobs: a set.
    pub(crate) fn parked(&self) -> String {
        self.own("parked")
    }

    /// The start of the names of lists: the parked jobs of a class, `<since ms> <queue> <attempts> <deaths> <stalls> <job>`.
    pub(crate) fn parked_of(&self) -> String {
        self.own("parked:")
    }

    /// The classes of jobs that failed in no attempt, and that no node has attended to: a set.
    pub(crate) fn unattended(&self) -> String {
        self.own("unattended")
    }

    /// The start of the names of lists: the records of such jobs of a class.
    pub(crate) fn unattended_of(&self) -> String {
        self.own("unattended:")
    }

    /// The start of the names of claims, each with the id of its job.
    pub(crate) fn unique(&self) -> String {
        self.own("unique:")
    }

    /// The start of the names of ids that enqueuers chose, each with the digest of the job.
    pub(crate) fn ids(&self) -> String {
        self.own("ids:")
    }

    /// The ids of jobs that were deleted and may still wait or run: a sorted set, by seconds.
    pub(crate) fn deleted(&self) -> String {
        self.own("deleted")
    }

    /// The ids of the last jobs that succeeded: a list.
    pub(crate) fn done(&self) -> String {
        self.own("done")
    }

    /// The start of the names of hashes: what a job reported last, with its `attempt`, `<generation> <field in running>`, its
    /// `progress` and its `result`, or `!` and why it has none; `tracked`, and its `end`: `done`, `failed`, or `dropped`.
    pub(crate) fn reports(&self) -> String {
        self.own("reports:")
    }

    /// The start of the names of batches: hashes with their numbers, and the jobs that their ends enqueue.
    pub(crate) fn batches(&self) -> String {
        self.own("batch:")
    }

    /// The deadlines of batches: a sorted set of their ids, by ms.
    pub(crate) fn batches_due(&self) -> String {
        self.own("batches:due")
    }

    /// The start of the names of bitmaps: the members of a batch that have ended, by their numbers.
    pub(crate) fn batches_ended(&self) -> String {
        self.own("batches:ended:")
    }

    /// The series of a minute: a hash from the task to `<processed> <failed> <class of times>:<count> …`.
    pub(crate) fn series(&self, minute: u64) -> String {
        format!("{}{minute}", self.series_of())
    }

    /// The start of the names of those hashes.
    pub(crate) fn series_of(&self) -> String {
        self.own("series:")
    }

    /// The start of the names of checkpoints, each given by the id of its job.
    pub(crate) fn checkpoints(&self) -> String {
        self.own("checkpoint:")
    }

    /// Written so that replicas confirm what was written before it.
    pub(crate) fn replicated(&self) -> String {
        self.own("replicated")
    }

    /// The ids of failed jobs: a sorted set, by µs.
    pub(crate) fn failed_ids(&self) -> String {
        self.own("failed:ids")
    }

    /// The queues that are paused: a set.
    pub(crate) fn paused(&self) -> String {
        self.own("paused")
    }

    /// The channel that names a queue which was empty and is not any more.
    pub(crate) fn wake(&self) -> String {
        [&self.channels, ":wake"].concat()
    }

    /// The start of the names of channels that name a tracked job whose end is published. Scripts make it of [`Self::wake`].
    pub(crate) fn wake_of_job(&self) -> String {
        [&self.wake(), ":"].concat()
    }

    fn own(&self, name: &str) -> String {
        [&self.own_prefix, name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_tasks_have_resques_names_or_the_clusters() {
        let keys = Keys::new("actionhero:", "shop").in_database(3);
        let (queue, timestamps) = ([&keys.ready(), "q"].concat(), keys.timestamps());
        assert_eq!((queue.as_str(), timestamps.as_str()), ("resque:queue:q", "resque:timestamps:"));
        assert_eq!((keys.again().as_str(), keys.wake().as_str()), ("phalanx:shop:again:", "shop@3:wake"));
        assert_eq!(keys.with_tasks_prefix("r:").failed(), "r:failed");
    }
}
