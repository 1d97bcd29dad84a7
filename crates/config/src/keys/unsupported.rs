//! Keys that people bring from PM2, or expect, and that are not honoured. They
//! are never passed over in silence.

/// Keys of an app whose absence would change what it does: errors, with what
/// to do instead.
pub(crate) const LATER: &[(&str, &str)] = &[
    ("autostart", "remove it; `supervisor stop NAME` keeps an app stopped"),
    ("cron", "restart the app from a timer of the system"),
    ("cron_restart", "restart the app from a timer of the system"),
    ("drain_timeout", "remove it; `kill_timeout` limits how long a worker may take to end"),
    ("exp_backoff_restart_delay", "use `restart_delay` and `restart_backoff`"),
    ("filter_env", "use `inherit_env: false`, or list the variables to keep"),
    ("hang_timeout", "remove it"),
    ("ignore_watch", "remove it, and `watch` with it"),
    ("increment_var", "derive the value from `instance_var` in the program"),
    ("max_memory_restart", "limit memory from outside, for example with systemd's `MemoryMax`"),
    ("max_surge", "remove it"),
    ("name_prefix", "write the prefix into `name`"),
    ("pid_file", "use `supervisor status --json`"),
    ("port", "set `PORT` in `env`, or use `listen`"),
    ("shutdown_with_message", "handle the `kill_signal` in the program"),
    ("treekill", "remove it"),
    ("wait_ready", "use `ready: notify`"),
    ("watch", "restart the app when its files have changed: `supervisor restart NAME`"),
    ("watch_delay", "remove it, and `watch` with it"),
    ("watch_options", "remove it, and `watch` with it"),
    ("watchdog", "remove it"),
];

/// Keys of an app that PM2 knows and that mean nothing here: warnings.
pub(crate) const MEANINGLESS: &[(&str, &str)] = &[
    ("append_env_to_name", "write the whole `name`"),
    ("automation", "remove it"),
    ("deep_monitoring", "remove it"),
    ("disable_source_map_support", "remove it"),
    ("disable_trace", "remove it"),
    ("event_loop_inspector", "remove it"),
    ("execute_command", "remove it"),
    ("force", "remove it; starting the same script twice needs two names"),
    ("install_url", "remove it"),
    ("io", "remove it"),
    ("pmx", "remove it"),
    ("post_update", "remove it"),
    ("source_map_support", "use `node_args: --enable-source-maps`"),
    ("trace", "remove it"),
    ("v8", "remove it"),
    ("vizion", "remove it"),
    ("windows_hide", "remove it"),
];

/// Keys beside `apps`: errors.
pub(crate) const TOP_LATER: &[(&str, &str)] = &[
    ("daemon", "remove it; the supervisor runs with its defaults"),
    ("deploy", "deploy with a tool of its own"),
    ("pm2", "call it `apps`"),
    ("static", "serve files with a program of its own"),
];
