//! A log file that is rotated by day: with the first line of a day, the file of the day before gets its date.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate};

const DAY: u64 = 24 * 60 * 60;

/// The name of a log file, its day, and how many earlier ones stay.
#[derive(Debug)]
pub(super) struct DailyFile {
    path: PathBuf,
    /// The number of earlier files that are kept; with none, the file is not rotated.
    keep: usize,
    /// The day of its lines, from 1970 on, in UTC.
    day: u64,
}

impl DailyFile {
    /// Opens the file, after the one that an earlier process has left of another day was rotated.
    pub(super) fn open(path: PathBuf, keep: usize) -> io::Result<(Self, File)> {
        let today = day_of(SystemTime::now());
        let day = fs::metadata(&path).and_then(|left| left.modified()).map_or(today, day_of);
        let mut daily = Self { path, keep, day };
        let file = match daily.rotate(today)? {
            Some(file) => file,
            None => daily.reopen()?,
        };
        Ok((daily, file))
    }

    /// Opens the file under its name.
    pub(super) fn reopen(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.path)
    }

    /// Rotates the file if its day is over, and returns the new one.
    pub(super) fn rotate_if_due(&mut self) -> io::Result<Option<File>> {
        self.rotate(day_of(SystemTime::now()))
    }

    fn rotate(&mut self, today: u64) -> io::Result<Option<File>> {
        let over = std::mem::replace(&mut self.day, today);
        // Not a link to a device, such as /dev/stdout, whose times say nothing.
        let is_plain = fs::symlink_metadata(&self.path).is_ok_and(|file| file.is_file());
        if over == today || self.keep == 0 || !is_plain {
            return Ok(None);
        }
        let dated = self.dated(over);
        if !dated.exists() {
            fs::rename(&self.path, dated)?; // else the clock was set back: one more day in this file loses nothing
        }
        let file = self.reopen()?;
        self.remove_old()?;
        Ok(Some(file))
    }

    /// The name of the file of a day: `node-production.2026-11-29.log`.
    fn dated(&self, day: u64) -> PathBuf {
        let date = DateTime::from_timestamp((day * DAY) as i64, 0).unwrap_or_default();
        self.path.with_extension(format!("{}.log", date.format("%Y-%m-%d")))
    }

    /// Removes the oldest of the earlier files beyond those that are kept.
    fn remove_old(&self) -> io::Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        let mut earlier: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if self.is_earlier(&path) {
                earlier.push(path);
            }
        }
        earlier.sort();
        let beyond = earlier.len().saturating_sub(self.keep);
        earlier[..beyond].iter().try_for_each(fs::remove_file)
    }

    fn is_earlier(&self, path: &Path) -> bool {
        let name = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let (Some(own), Some(name)) = (name(&self.path), name(path)) else { return false };
        let date = name.strip_prefix(&own).and_then(|rest| rest.strip_prefix('.'));
        path.extension().is_some_and(|end| end == "log") && date.is_some_and(|date| date.parse::<NaiveDate>().is_ok())
    }
}

fn day_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_day_that_is_over_gets_a_file_of_its_own_and_the_oldest_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node-test.log");
        fs::write(&path, "left\n").unwrap();
        let left = UNIX_EPOCH + Duration::from_secs(20_000 * DAY + 5);
        File::options().append(true).open(&path).unwrap().set_modified(left).unwrap();
        for other in ["node-test.2020-01-01.log", "node-test.1.log", "node-testing.2020-01-01.log"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let (mut daily, mut file) = DailyFile::open(path.clone(), 2).unwrap();
        let kept = ["node-test.1.log", "node-test.2020-01-01.log", "node-test.2024-10-04.log"];
        let others = ["node-test.log", "node-testing.2020-01-01.log"];
        assert_eq!(names(folder.path()), [&kept[..], &others[..]].concat());
        assert_eq!(fs::read_to_string(folder.path().join(kept[2])).unwrap(), "left\n");
        file.write_all(b"today\n").unwrap();
        let today = daily.day;
        assert!(daily.rotate(today).unwrap().is_none());
        let mut file = daily.rotate(today + 1).unwrap().unwrap();
        file.write_all(b"tomorrow\n").unwrap();
        let yesterday = daily.dated(today);
        assert_eq!(fs::read_to_string(&yesterday).unwrap(), "today\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "tomorrow\n");
        assert!(!folder.path().join("node-test.2020-01-01.log").exists(), "two are kept");
        assert!(daily.rotate(today).unwrap().is_some(), "the clock was set back");
        daily.rotate(today + 1).unwrap();
        assert_eq!(fs::read_to_string(&yesterday).unwrap(), "today\n", "none is overwritten");
    }

    #[test]
    fn nothing_is_rotated_where_no_earlier_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (mut daily, _) = DailyFile::open(folder.path().join("node.log"), 0).unwrap();
        let tomorrow = daily.day + 1;
        assert!(daily.rotate(tomorrow).unwrap().is_none());
        assert_eq!(names(folder.path()), ["node.log"]);
    }
}
