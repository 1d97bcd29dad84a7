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
    topics: HashMap<String, Topic>,
    bytes: usize,
    next: u64,
}

/// Those of one topic.
#[derive(Debug, Default)]
struct Topic {
    /// How many it retains, where a message has said so.
    keep: Option<usize>,
    lines: VecDeque<Numbered>,
}

impl Retained {
    /// Retains a message: the last ones of its topic within `limit` bytes, as
    /// many as `keep` says from now on, otherwise as a message has said before,
    /// otherwise `default`.
    pub(super) fn add(
        &mut self,
        topic: &str,
        line: &[u8],
        keep: Option<usize>,
        default: usize,
        limit: usize,
    ) {
        let known = self.topics.get(topic);
        let said = keep.or_else(|| known.and_then(|topic| topic.keep));
        let keep = said.unwrap_or(default);
        if keep == 0 || line.len() > limit {
            self.forget(topic);
            return;
        }
        if known.is_none() && self.topics.len() >= MAX_RETAINED_TOPICS {
            self.forget_oldest();
        }
        let topic = self.topics.entry(topic.to_owned()).or_default();
        topic.keep = said;
        topic.lines.push_back((self.next, line.into()));
        self.next += 1;
        self.bytes += line.len();
        while topic.lines.len() > keep
            && let Some((_, line)) = topic.lines.pop_front()
        {
            self.bytes -= line.len();
        }
        while self.bytes > limit {
            self.drop_oldest();
        }
    }

    /// The last `count` that are retained of each of these topics, in the order
    /// in which they came.
    pub(super) fn of(&self, patterns: &[String], count: usize) -> Vec<Arc<[u8]>> {
        let wanted = |name: &String| patterns.iter().any(|pattern| matches(pattern, name));
        let topics = self.topics.iter().filter(|(name, _)| wanted(name));
        let last = |topic: &'_ Topic| topic.lines.len().saturating_sub(count);
        let mut lines: Vec<&Numbered> =
            topics.flat_map(|(_, topic)| topic.lines.iter().skip(last(topic))).collect();
        lines.sort_unstable_by_key(|(number, _)| *number);
        lines.into_iter().map(|(_, line)| Arc::clone(line)).collect()
    }

    /// Forgets a topic.
    fn forget(&mut self, topic: &str) {
        let Some(topic) = self.topics.remove(topic) else { return };
        self.bytes -= topic.lines.iter().map(|(_, line)| line.len()).sum::<usize>();
    }

    /// The topic with the oldest message.
    fn oldest(&self) -> Option<String> {
        let oldest = |topic: &Topic| topic.lines.front().map(|(number, _)| *number);
        self.topics.iter().min_by_key(|(_, topic)| oldest(topic)).map(|(name, _)| name.clone())
    }

    fn forget_oldest(&mut self) {
        if let Some(name) = self.oldest() {
            self.forget(&name);
        }
    }

    /// Drops the oldest message, and its topic with its last one.
    fn drop_oldest(&mut self) {
        let Some(name) = self.oldest() else { return };
        let Some(topic) = self.topics.get_mut(&name) else { return };
        self.bytes -= topic.lines.pop_front().map_or(0, |(_, line)| line.len());
        if topic.lines.is_empty() {
            self.topics.remove(&name);
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

    fn text(lines: Vec<Arc<[u8]>>) -> String {
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    #[test]
    fn the_last_ones_are_retained() {
        let all = ["*".to_owned()];
        let mut retained = Retained::default();
        for (topic, line) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("c", "5")] {
            retained.add(topic, line.as_bytes(), None, 2, 100);
        }
        assert_eq!(text(retained.of(&all, 9)), "2345");
        assert_eq!(text(retained.of(&all, 1)), "245");
        assert_eq!(text(retained.of(&["a".to_owned(), "c*".to_owned()], 9)), "345");
        // The oldest makes room.
        retained.add("d", b"6666", None, 2, 7);
        assert_eq!(text(retained.of(&all, 9)), "3456666");
        retained.add("e", &[b'x'; 101], None, 2, 100);
        assert!(retained.of(&["e".to_owned()], 9).is_empty());
        let mut many = Retained::default();
        for topic in 0..2 * MAX_RETAINED_TOPICS {
            many.add(&topic.to_string(), b"x", Some(3), 0, usize::MAX);
            many.add(&topic.to_string(), b"y", None, 0, usize::MAX);
        }
        assert_eq!((many.topics.len(), many.bytes), (MAX_RETAINED_TOPICS, 2 * MAX_RETAINED_TOPICS));
    }

    #[test]
    fn each_topic_retains_as_it_says() {
        let all = ["*".to_owned()];
        let mut retained = Retained::default();
        let mut add = |topic: &str, line: &str, keep| {
            retained.add(topic, line.as_bytes(), keep, 1, 100);
            text(retained.of(&all, 9))
        };
        add("a", "1", None);
        assert_eq!(add("a", "2", None), "2");
        add("a", "3", Some(3));
        // It goes for the next ones, too.
        assert_eq!(add("a", "4", None), "234");
        assert_eq!(add("a", "5", None), "345");
        add("b", "6", None);
        assert_eq!(add("a", "7", Some(1)), "67");
        assert_eq!(add("a", "8", Some(0)), "6");
        assert_eq!(add("a", "9", None), "69");
    }
}
