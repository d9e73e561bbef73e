//! Every key in Redis, in one place.

/// The names of keys. Those that an Actionhero node looks for keep their names.
#[derive(Clone, Debug)]
pub struct Keys {
    shared: String,
    own: String,
}

impl Keys {
    /// Names keys for a cluster: `shared` is the prefix it has in common with Actionhero nodes, `actionhero:` there.
    pub fn new(shared: &str, cluster: &str) -> Self {
        Self { shared: shared.to_owned(), own: format!("phalanx:{cluster}:") }
    }

    /// Before the names of values, lists and counters.
    pub(crate) fn cache_prefix(&self) -> String {
        format!("{}cache:", self.shared)
    }

    /// A value, a list or a counter.
    pub(crate) fn cache(&self, key: &str) -> String {
        format!("{}cache:{key}", self.shared)
    }

    /// Before the names of locks.
    pub(crate) fn lock_prefix(&self) -> String {
        format!("{}lock:", self.shared)
    }

    /// Who holds a lock: its owner, for as long as the lease runs.
    pub(crate) fn lock(&self, name: &str) -> String {
        format!("{}lock:{name}", self.shared)
    }

    /// The last fencing token of a lock.
    pub(crate) fn fence(&self, name: &str) -> String {
        format!("{}fence:{name}", self.own)
    }
}

/// A pattern of SCAN that finds exactly what begins with `prefix`: its characters mean themselves.
pub(crate) fn beginning_with(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 8);
    for character in prefix.chars() {
        if "*?[]\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_others_look_for_keep_their_names() {
        let keys = Keys::new("actionhero:", "shop");
        assert_eq!(keys.cache("a"), "actionhero:cache:a");
        assert_eq!(keys.lock("a"), "actionhero:lock:a");
        assert_eq!(keys.fence("a"), "phalanx:shop:fence:a");
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(beginning_with("a*[b]?\\"), r"a\*\[b\]\?\\*");
    }
}
