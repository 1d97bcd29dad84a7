//! Users and groups, by name or number.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User as Entry, getgrouplist};

use crate::spawn::Credentials;

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name; `None` for a number without an entry.
    pub name: Option<String>,
    /// The user id.
    pub uid: u32,
    /// The primary group: the one given, or else the user's own.
    pub gid: u32,
    /// All groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: Option<PathBuf>,
    /// Login shell.
    pub shell: Option<PathBuf>,
}

impl User {
    /// Finds `name`, `uid`, or either with a group as in `name:group` and `uid:gid`.
    ///
    /// Names come first: digits are a number only if nobody has that name. A number without an entry,
    /// as is usual in containers, needs a group.
    ///
    /// Asks whatever the system's name service asks, and may block on it.
    ///
    /// # Errors
    ///
    /// See [`LookupError`].
    pub fn lookup(spec: &str) -> Result<Self, LookupError> {
        let (name, group) = match spec.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (spec, None),
        };
        let group = group.map(lookup_group).transpose()?;
        match find(name)? {
            Some(entry) => Self::from_entry(entry, group),
            None => match (number(name), group) {
                (Some(uid), Some(gid)) => {
                    Ok(Self { name: None, uid, gid, groups: vec![gid], home: None, shell: None })
                }
                (Some(_), None) => Err(LookupError::GroupNeeded(name.to_owned())),
                (None, _) => Err(LookupError::NoUser(name.to_owned())),
            },
        }
    }

    fn from_entry(entry: Entry, group: Option<u32>) -> Result<Self, LookupError> {
        let gid = group.unwrap_or(entry.gid.as_raw());
        let system =
            |error: nix::Error| LookupError::System { name: entry.name.clone(), source: error.into() };
        // A name from the database holds no NUL.
        let name = CString::new(entry.name.as_str()).unwrap_or_default();
        let groups = getgrouplist(&name, Gid::from_raw(gid)).map_err(system)?;
        Ok(Self {
            uid: entry.uid.as_raw(),
            gid,
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            home: some_path(entry.dir),
            shell: some_path(entry.shell),
            name: Some(entry.name),
        })
    }

    /// What a child needs to become this user.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials { uid: self.uid, gid: self.gid, groups: self.groups.clone() }
    }
}

/// The id of a group, by name or number. A number needs no entry.
///
/// # Errors
///
/// [`LookupError::NoGroup`], [`LookupError::System`].
pub fn lookup_group(name: &str) -> Result<u32, LookupError> {
    let found = Group::from_name(name)
        .map_err(|error| LookupError::System { name: name.to_owned(), source: error.into() })?;
    found
        .map(|group| group.gid.as_raw())
        .or_else(|| number(name))
        .ok_or_else(|| LookupError::NoGroup(name.to_owned()))
}

fn find(name: &str) -> Result<Option<Entry>, LookupError> {
    let system = |error: nix::Error| LookupError::System { name: name.to_owned(), source: error.into() };
    let by_name = Entry::from_name(name).map_err(system)?;
    match (by_name, number(name)) {
        (None, Some(uid)) => Entry::from_uid(Uid::from_raw(uid)).map_err(system),
        (found, _) => Ok(found),
    }
}

/// An id: digits only. The largest number means "no change" to the kernel and is none.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = digits.then(|| text.parse().ok())??;
    (id != u32::MAX).then_some(id)
}

fn some_path(path: PathBuf) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Why a user or group was not found.
#[derive(Debug)]
pub enum LookupError {
    /// Nobody has this name.
    NoUser(String),
    /// No group has this name.
    NoGroup(String),
    /// A number without an entry, hence without a group of its own.
    GroupNeeded(String),
    /// The name service failed.
    System {
        /// What was looked up.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NoUser(name) => write!(f, "no user {name:?}"),
            LookupError::NoGroup(name) => write!(f, "no group {name:?}"),
            LookupError::GroupNeeded(uid) => {
                write!(f, "user {uid} has no entry: give its group too, as {uid}:GROUP")
            }
            LookupError::System { name, source } => {
                write!(f, "cannot look up {name:?}: {source}")
            }
        }
    }
}

impl std::error::Error for LookupError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_everywhere() {
        let root = User::lookup("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(root.name.as_deref(), Some("root"));
        assert!(root.groups.contains(&0));
        assert!(root.home.is_some());
        assert_eq!(User::lookup("0").unwrap(), root);
        assert_eq!(User::lookup("root:root").unwrap(), root);
    }

    #[test]
    fn a_group_can_be_given() {
        let user = User::lookup("root:54321").unwrap();
        assert_eq!((user.uid, user.gid), (0, 54321));
        assert!(user.groups.contains(&54321));
        let user = User::lookup("43210:54321").unwrap();
        let credentials = Credentials { uid: 43210, gid: 54321, groups: vec![54321] };
        assert_eq!(user.credentials(), credentials);
        assert_eq!(user.name, None);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |spec: &str, message: &str| {
            assert_eq!(User::lookup(spec).unwrap_err().to_string(), message);
        };
        check("no-such-user", "no user \"no-such-user\"");
        check("", "no user \"\"");
        check("-1", "no user \"-1\"");
        check("4294967295:0", "no user \"4294967295\"");
        check("root:no-such-group", "no group \"no-such-group\"");
        check("root:", "no group \"\"");
        check("43210", "user 43210 has no entry: give its group too, as 43210:GROUP");
    }
}
