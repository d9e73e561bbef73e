//! An entry of `tasks.queues`: a queue, and what limits it on a node.

use super::TaskSettings;

/// A queue that a node serves, as `tasks.queues` has it: `"mail"`, `"mail concurrency=2"`, `"mail weight=3 concurrency=2"`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedQueue {
    /// Its name, or `*` for all that are not named.
    pub name: String,
    /// Most jobs of it that the node runs at once; `None`: as many as it has slots. Of `*`, that of each queue.
    pub concurrency: Option<usize>,
    /// Its weight among its neighbours that have one; `None`: it has its place in the order.
    pub weight: Option<u32>,
}

impl ServedQueue {
    /// The largest weight.
    pub const MAX_WEIGHT: u32 = 1000;

    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// The reason why it is none, which names the entry.
    pub fn parse(entry: &str) -> Result<Self, String> {
        let mut words = entry.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        if name != TaskSettings::ALL_QUEUES && !TaskSettings::is_queue(name) {
            let rule = "a name has 1 to 100 characters of A-Z a-z 0-9 : . _ -, or is `*` for all others";
            return Err(format!("{entry:?}: {rule}"));
        }
        let mut queue = Self { name: name.to_owned(), concurrency: None, weight: None };
        for word in words {
            let is_new = match word.split_once('=') {
                Some(("concurrency", number)) => {
                    let concurrency = number.parse().ok().filter(|it| (1..=TaskSettings::MAX_CONCURRENCY).contains(it));
                    let error = || format!("{entry:?}: concurrency is from 1 to {}", TaskSettings::MAX_CONCURRENCY);
                    queue.concurrency.replace(concurrency.ok_or_else(error)?).is_none()
                }
                Some(("weight", number)) => {
                    let weight = number.parse().ok().filter(|it| (1..=Self::MAX_WEIGHT).contains(it));
                    let error = || format!("{entry:?}: weight is from 1 to {}", Self::MAX_WEIGHT);
                    queue.weight.replace(weight.ok_or_else(error)?).is_none()
                }
                _ => {
                    return Err(format!("{entry:?}: `concurrency=…` and `weight=…` may follow the name, not {word:?}"));
                }
            };
            if !is_new {
                return Err(format!("{entry:?}: {word:?} comes a second time"));
            }
        }
        Ok(queue)
    }
}

impl TaskSettings {
    /// The queues that the node serves, in their order.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be read, or names a queue again.
    pub fn served_queues(&self) -> Result<Vec<ServedQueue>, String> {
        if !(1..=Self::MAX_QUEUES).contains(&self.queues.len()) {
            return Err(format!("1 to {} queues are named", Self::MAX_QUEUES));
        }
        let queues = self.queues.iter().map(|entry| ServedQueue::parse(entry)).collect::<Result<Vec<_>, _>>()?;
        let double = queues.iter().enumerate().find(|(at, queue)| queues[..*at].iter().any(|it| it.name == queue.name));
        match double {
            Some((_, queue)) => Err(format!("{:?} is named twice", queue.name)),
            None => Ok(queues),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_name_and_what_limits_the_queue() {
        for (entry, name, concurrency, weight) in [
            ("mail", "mail", None, None),
            ("mail:2", "mail:2", None, None), // names may have colons
            ("*", "*", None, None),
            ("mail concurrency=2", "mail", Some(2), None),
            (" mail  weight=3 concurrency=10000 ", "mail", Some(10_000), Some(3)),
            ("* weight=1000", "*", None, Some(1000)),
        ] {
            let read = ServedQueue::parse(entry).unwrap();
            assert_eq!((read.name.as_str(), read.concurrency, read.weight), (name, concurrency, weight), "{entry:?}");
        }
    }

    #[test]
    fn a_wrong_entry_is_named_with_the_reason() {
        for (entry, reason) in [
            ("", "a name has"),
            ("a/b", "a name has"),
            ("weight=3", "a name has"),
            ("mail 2", "not \"2\""),
            ("mail size=2", "not \"size=2\""),
            ("mail concurrency=0", "concurrency is from 1 to 10000"),
            ("mail concurrency=10001", "concurrency is from 1 to 10000"),
            ("mail concurrency=-1", "concurrency is from 1 to 10000"),
            ("mail weight=0", "weight is from 1 to 1000"),
            ("mail weight=1001", "weight is from 1 to 1000"),
            ("mail weight=1.5", "weight is from 1 to 1000"),
            ("mail weight=", "weight is from 1 to 1000"),
            ("mail weight=1 weight=1", "\"weight=1\" comes a second time"),
        ] {
            let error = ServedQueue::parse(entry).unwrap_err();
            assert!(error.starts_with(&format!("{entry:?}: ")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_queue_is_served_once() {
        let of = |queues: &[&str]| {
            let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
            TaskSettings { queues, ..TaskSettings::default() }.served_queues()
        };
        assert_eq!(of(&["a", "b", "*"]).unwrap().len(), 3);
        assert_eq!(of(&["a", "a weight=2"]).unwrap_err(), "\"a\" is named twice");
        assert_eq!(of(&[]).unwrap_err(), "1 to 64 queues are named");
        assert_eq!(of(&["a"; 65]).unwrap_err(), "1 to 64 queues are named");
    }
}
