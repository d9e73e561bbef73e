//! Changes of the number of workers.

use super::{Level, MAX_WORKERS, ScaleChange, Supervisor};

impl Supervisor {
    /// Changes the number of workers, after the roll if one runs.
    pub(super) fn scale(&mut self, change: ScaleChange) {
        if self.stopping.is_some() {
            return;
        }
        let target = self.next_target.unwrap_or(self.groups[self.scaled].workers);
        let wanted = match change {
            ScaleChange::Add => target + 1,
            ScaleChange::Remove => target - 1,
            ScaleChange::To(wanted) => wanted,
        };
        if let Err(reason) = self.check_target(wanted) {
            return self.log(Level::Warn, reason);
        }
        if self.roll.is_some() {
            self.next_target = Some(wanted);
            return self.log(Level::Info, format!("a roll is running: there will be {wanted} workers after it"));
        }
        self.set_target(wanted);
    }

    /// Whether there can be so many workers.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn check_target(&self, workers: u32) -> Result<(), String> {
        if workers == 0 {
            return Err("the last worker is not removed".to_owned());
        }
        let others: u32 = self.groups.iter().map(|group| group.workers).sum::<u32>() - self.groups[self.scaled].workers;
        if workers.saturating_add(others) > MAX_WORKERS {
            return Err(format!("there are never more than {MAX_WORKERS} workers"));
        }
        Ok(())
    }

    pub(super) fn set_target(&mut self, wanted: u32) {
        let group = &mut self.groups[self.scaled];
        if std::mem::replace(&mut group.workers, wanted) != wanted {
            self.log(Level::Info, format!("the number of workers is {wanted} from now on"));
        }
    }
}
