//! Who has subscribed to what, and what is retained.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Topics that one worker can subscribe to.
const MAX_SUBSCRIPTIONS: usize = 1024;
/// Topics of which messages are retained, an app.
const MAX_RETAINED_TOPICS: usize = 1024;

/// The topics of one worker.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    exact: BTreeSet<String>,
    /// Without the `*`.
    prefixes: BTreeSet<String>,
}

impl Subscriptions {
    /// Adds a topic. Returns whether there was room.
    pub(super) fn add(&mut self, topic: &str) -> bool {
        if self.exact.len() + self.prefixes.len() >= MAX_SUBSCRIPTIONS {
            return self.exact.contains(topic);
        }
        match topic.strip_suffix('*') {
            Some(prefix) => self.prefixes.insert(prefix.to_owned()),
            None => self.exact.insert(topic.to_owned()),
        };
        true
    }

    pub(super) fn remove(&mut self, topic: &str) {
        match topic.strip_suffix('*') {
            Some(prefix) => self.prefixes.remove(prefix),
            None => self.exact.remove(topic),
        };
    }

    /// All of them, as they were subscribed to.
    pub(super) fn list(&self) -> Vec<String> {
        let prefixes = self.prefixes.iter().map(|prefix| format!("{prefix}*"));
        self.exact.iter().cloned().chain(prefixes).collect()
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        self.exact.contains(topic) || self.prefixes.iter().any(|prefix| topic.starts_with(prefix.as_str()))
    }
}

/// Whether a topic is the one subscribed to, or one of those.
pub(super) fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => pattern == topic,
    }
}

/// A message, numbered so that those of several topics can be put in order.
type Numbered = (u64, Arc<[u8]>);

/// The last messages of an app's topics.
#[derive(Debug, Default)]
pub(super) struct Retained {
    topics: HashMap<String, VecDeque<Numbered>>,
    bytes: usize,
    next: u64,
}

impl Retained {
    /// Retains a message: the last `keep` of its topic, within `limit` bytes.
    pub(super) fn add(&mut self, topic: &str, line: &[u8], keep: usize, limit: usize) {
        if keep == 0 || line.len() > limit {
            return;
        }
        if !self.topics.contains_key(topic) && self.topics.len() >= MAX_RETAINED_TOPICS {
            self.drop_oldest();
        }
        self.bytes += line.len();
        let lines = self.topics.entry(topic.to_owned()).or_default();
        lines.push_back((self.next, line.into()));
        self.next += 1;
        while lines.len() > keep
            && let Some((_, line)) = lines.pop_front()
        {
            self.bytes -= line.len();
        }
        while self.bytes > limit {
            self.drop_oldest();
        }
    }

    /// What is retained of these topics, in the order in which it came.
    pub(super) fn of(&self, patterns: &[String]) -> Vec<Arc<[u8]>> {
        let wanted = |topic: &String| patterns.iter().any(|pattern| matches(pattern, topic));
        let topics = self.topics.iter().filter(|(topic, _)| wanted(topic));
        let mut lines: Vec<&Numbered> = topics.flat_map(|(_, lines)| lines).collect();
        lines.sort_unstable_by_key(|(number, _)| *number);
        lines.into_iter().map(|(_, line)| Arc::clone(line)).collect()
    }

    /// Forgets the oldest message, and its topic with its last one.
    fn drop_oldest(&mut self) {
        let oldest = self.topics.iter().min_by_key(|(_, lines)| lines.front().map(|(number, _)| *number));
        let Some(topic) = oldest.map(|(topic, _)| topic.clone()) else { return };
        if let Some(lines) = self.topics.get_mut(&topic) {
            self.bytes -= lines.pop_front().map_or(0, |(_, line)| line.len());
            if lines.is_empty() {
                self.topics.remove(&topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_their_beginnings() {
        let mut own = Subscriptions::default();
        for topic in ["cache.users", "jobs.*"] {
            assert!(own.add(topic));
        }
        for (topic, is_in) in [
            ("cache.users", true),
            ("cache.users.1", false),
            ("jobs.", true),
            ("jobs.a.b", true),
            ("jobs", false),
        ] {
            assert_eq!(own.contains(topic), is_in, "{topic}");
        }
        own.remove("jobs.*");
        assert!(!own.contains("jobs.a"));
        own.add("*");
        assert!(own.contains("anything"));
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut own = Subscriptions::default();
        assert!((0..MAX_SUBSCRIPTIONS).all(|topic| own.add(&topic.to_string())));
        assert!(!own.add("one more"));
        assert!(own.add("7"));
    }

    #[test]
    fn the_last_ones_are_retained() {
        let text = |lines: Vec<Arc<[u8]>>| {
            lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>().join("")
        };
        let mut retained = Retained::default();
        for (topic, line) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("c", "5")] {
            retained.add(topic, line.as_bytes(), 2, 100);
        }
        assert_eq!(text(retained.of(&["*".to_owned()])), "2345");
        assert_eq!(text(retained.of(&["a".to_owned(), "c*".to_owned()])), "345");
        // The oldest makes room.
        retained.add("d", b"6666", 2, 7);
        assert_eq!(text(retained.of(&["*".to_owned()])), "3456666");
        retained.add("e", &[b'x'; 101], 2, 100);
        assert!(retained.of(&["e".to_owned()]).is_empty());
        let mut many = Retained::default();
        (0..2 * MAX_RETAINED_TOPICS).for_each(|topic| many.add(&topic.to_string(), b"x", 1, usize::MAX));
        assert_eq!(many.topics.len(), MAX_RETAINED_TOPICS);
    }
}
