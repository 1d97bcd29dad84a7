//! Where workers' output goes and what it looks like there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::report::Problem;
use crate::tree::{Node, Value};
use crate::value::{boolean, bytes, expected, integer, non_empty, one_of, text};
use crate::{LogTarget, cron, path};

/// The longest `log_date_format`, bytes.
const MAX_DATE_FORMAT: usize = 200;
/// What `time: true` means, as in PM2.
const TIME: &str = "YYYY-MM-DDTHH:mm:ss";

/// How workers' output is kept, besides the files that it goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// A file that both streams go to besides their own; none when absent.
    pub combined_file: Option<PathBuf>,
    /// All slots write to one file: `-SLOT` is not added to names.
    pub merge: bool,
    /// Lines become JSON objects instead of text.
    pub json: bool,
    /// The time of each line, as tokens of day.js: before a line of text, or as
    /// the `timestamp` of a JSON object.
    pub date_format: Option<String>,
    /// A file is rotated before it would grow larger, in bytes; 0 means never.
    pub max_size: u64,
    /// When a file is rotated besides.
    pub rotate: LogPeriod,
    /// At which times it is rotated besides, as a cron expression.
    #[serde(default)]
    pub rotate_cron: Option<String>,
    /// How many rotated files of each file are kept.
    pub keep: u32,
    /// Rotated files are compressed with gzip.
    pub compress: bool,
}

/// How often log files are rotated: at the full hour, at midnight, before
/// Monday, before the first of the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogPeriod {
    /// Only because of their size.
    Never,
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
}

/// Where both streams go, and how their output is kept.
pub(crate) fn read(fields: &mut Fields<'_, '_, '_>, base: &Path) -> (LogTarget, LogTarget, LogOptions) {
    let mut target =
        |name: &str| fields.optional(name, |node| log_target(node, base)).unwrap_or(LogTarget::Default);
    let (mut out, mut error) = (target("out_file"), target("error_file"));
    let combined = fields.optional("log_file", |node| log_target(node, base));
    let time = fields.value("time", boolean);
    let date_format = fields.optional("log_date_format", date_format);
    let (rotate, rotate_cron) = fields.value("log_rotate", period);
    let mut options = LogOptions {
        combined_file: match combined {
            Some(LogTarget::File(path)) => Some(path),
            Some(LogTarget::Default | LogTarget::Null) | None => None,
        },
        merge: fields.value("merge_logs", boolean),
        json: fields.value("log_type", log_type),
        date_format: date_format.or_else(|| time.then(|| TIME.to_owned())),
        max_size: fields.value("log_max_size", max_size),
        rotate,
        rotate_cron,
        keep: fields.value("log_keep", integer(0..=10_000)),
        compress: fields.value("log_compress", boolean),
    };
    if fields.value("disable_logs", boolean) {
        (out, error, options.combined_file) = (LogTarget::Null, LogTarget::Null, None);
    }
    (out, error, options)
}

fn log_target(node: &Node, base: &Path) -> Result<LogTarget, Problem> {
    let is_written = node.span.is_none_or(|span| span.start < span.end);
    match &node.value {
        // PM2's NULL is a text in JSON, and a null in YAML.
        Value::Null if is_written => Ok(LogTarget::Null),
        Value::Text(text) if text == "NULL" || text == "/dev/null" => Ok(LogTarget::Null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            Ok(LogTarget::File(path::absolute(text(node)?, base)?))
        }
    }
}

fn log_type(node: &Node) -> Result<bool, Problem> {
    one_of(&[("text", false), ("raw", false), ("json", true)])(node)
}

/// A period, or the times of a cron expression.
fn period(node: &Node) -> Result<(LogPeriod, Option<String>), Problem> {
    if let Value::Text(text) = &node.value
        && (text.contains(char::is_whitespace) || text.starts_with('@'))
    {
        return cron::checked(text.trim()).map(|expression| (LogPeriod::Never, Some(expression)));
    }
    let period = one_of(&[
        ("never", LogPeriod::Never),
        ("hourly", LogPeriod::Hourly),
        ("daily", LogPeriod::Daily),
        ("weekly", LogPeriod::Weekly),
        ("monthly", LogPeriod::Monthly),
    ])(node)?;
    Ok((period, None))
}

fn date_format(node: &Node) -> Result<String, Problem> {
    let format = non_empty(text(node).map(|_| node)?)?;
    match format.len() <= MAX_DATE_FORMAT && !format.contains(['\n', '\r']) {
        true => Ok(format.to_owned()),
        false => Err(expected(format_args!("one line of at most {MAX_DATE_FORMAT} bytes"), node)),
    }
}

/// A number of bytes, or a text with a unit.
fn max_size(node: &Node) -> Result<u64, Problem> {
    let size = match &node.value {
        Value::Number(text) | Value::Text(text) => bytes(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    };
    size.ok_or_else(|| expected("a size such as `10M` or `1G`, or `0` for no limit", node))
}
