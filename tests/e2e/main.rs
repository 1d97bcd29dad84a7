//! End to end: the real program, real processes, real sockets.
//!
//! A module for each topic. Every test has a [`Home`](harness::Home) of its
//! own, waits for facts with a deadline, and leaves nothing behind. The tests
//! run as root, because workers change their user, and with the programs that
//! `scripts/setup` installs. `scripts/test` builds and runs everything.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without ends it")]

mod claims;
mod follow;
mod hang;
mod harness;
mod hierarchy;
mod http;
mod load;
mod mounts;
mod process;
mod programs;
mod terminal;
mod wait;

mod adoption;
mod adoption_of_states;
mod balance;
mod budget;
mod capture;
mod cgroup;
mod channel;
mod checks;
mod config;
mod control;
mod crash;
mod cron;
mod daemon;
mod deaths;
mod describe;
mod environment;
mod events;
mod express;
mod json;
mod keeper_death;
mod lacks;
mod logs;
mod memory;
mod monit;
mod notify;
mod paths;
mod reload;
mod reload_together;
mod run;
mod safe_mode;
mod scale;
mod section;
mod servers;
mod sockets;
mod start;
mod state;
mod status;
mod stop;
mod surroundings;
mod systemd;
mod update;
mod upgrade;
mod watch;
