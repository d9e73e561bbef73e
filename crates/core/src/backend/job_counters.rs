//! The counters of a job, and what they say of it: whether it may be what kills or freezes nodes, and whether it is convicted.

/// How many deaths of nodes convict the job that they ran.
pub const MAX_DEATHS: u32 = 3;

/// How many reaps of nodes convict the job that they ran, whether these nodes died or came back.
pub const MAX_REAPS: u32 = 5;

/// How often a job was begun, and how that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounters {
    /// The attempts that count, with the one that runs.
    pub attempts: u32,
    /// The reaps of nodes that ran it. One of a node that comes back counts as a stall once the next reap is counted.
    pub deaths: u32,
    /// The reaps of nodes that ran it and came back.
    pub stalls: u32,
}

/// The reason for which a job fails that nodes ran which were reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conviction {
    /// [`MAX_DEATHS`] of them died.
    Poison,
    /// Fewer died, but [`MAX_REAPS`] were reaped.
    Stalled,
}

impl Conviction {
    /// The kind of the failure.
    pub const fn exception(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Stalled => "stalled",
        }
    }

    /// The error.
    pub const fn error(self) -> &'static str {
        match self {
            Self::Poison => "three nodes died while they ran it",
            Self::Stalled => "five nodes stood still or died while they ran it",
        }
    }
}

impl JobCounters {
    /// Whether the job may be what kills or freezes nodes: at most one such job runs on a node at a time, so that its neighbours
    /// are not convicted with it.
    pub fn is_suspect(self) -> bool {
        self.reaps().saturating_add(1) >= MAX_DEATHS
    }

    /// The reaps of nodes that ran it.
    pub fn reaps(self) -> u32 {
        self.deaths.saturating_add(self.stalls)
    }

    /// The counters after one more reap of a node that ran it, which came back or did not, and after the return of `returned`
    /// nodes whose reaps counted as deaths.
    pub fn after_reap(self, came_back: bool, returned: u32) -> Self {
        let returned = returned.min(self.deaths);
        Self {
            deaths: (self.deaths - returned).saturating_add(u32::from(!came_back)),
            stalls: self.stalls.saturating_add(returned).saturating_add(u32::from(came_back)),
            ..self
        }
    }

    /// Whether the job is not to run again.
    pub fn conviction(self) -> Option<Conviction> {
        if self.deaths >= MAX_DEATHS {
            return Some(Conviction::Poison);
        }
        (self.reaps() >= MAX_REAPS).then_some(Conviction::Stalled)
    }
}
