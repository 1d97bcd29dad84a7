//! Workers' log files: read, emptied, and opened anew.

use std::collections::BTreeMap;

use supervisor_core::{AppId, Slots};
use supervisor_protocol::control::{Flush, Stream};

use super::Answered;
use crate::control::{LogFile, LogQuery, Logs, Reply};
use crate::master::Master;

impl Master {
    pub(super) fn logs(&self, query: LogQuery) -> Answered<Logs> {
        let selected = self.select_or_all(&query.selectors)?;
        let mut files: Vec<LogFile> = Vec::new();
        for (name, entry) in self.registry.iter() {
            let Some(slots) = selected.get(&entry.id) else { continue };
            let settings = &entry.settings;
            // Workers of a user that is not known have written nothing.
            let Ok(access) = settings.access() else { continue };
            for slot in (0..entry.instances).filter(|slot| slots.contains(*slot)) {
                let paths = [
                    (Stream::Out, settings.out_path(&self.log_dir, slot)),
                    (Stream::Error, settings.error_path(&self.log_dir, slot)),
                ];
                for (stream, path) in paths {
                    let Some(path) = path.filter(|_| query.stream.is_none_or(|wanted| wanted == stream))
                    else {
                        continue;
                    };
                    // Slots may share a file, and so may both streams.
                    match files.iter_mut().find(|file| file.path == path) {
                        Some(file) if file.slot != Some(slot) => file.slot = None,
                        Some(_) => {}
                        None => files.push(LogFile {
                            app: name.to_owned(),
                            slot: (!settings.app.logs.merge || entry.instances == 1).then_some(slot),
                            stream,
                            path,
                            access: access.clone(),
                            json: settings.app.logs.json,
                        }),
                    }
                }
            }
        }
        let selection = self.selection(&query.selectors, selected);
        let follow = query.follow.then(|| self.output.follow());
        Ok(Logs { files, selection, follow, query })
    }

    pub(super) fn flush(&self, flush: &Flush) -> Answered<Reply> {
        let selected: BTreeMap<AppId, Slots> = self.select(&flush.selectors)?.into_iter().collect();
        let mut files = BTreeMap::new();
        for (_, entry) in self.registry.iter() {
            let Some(slots) = selected.get(&entry.id) else { continue };
            let Ok(access) = entry.settings.access() else { continue };
            for slot in (0..entry.instances).filter(|slot| slots.contains(*slot)) {
                let paths = [
                    entry.settings.out_path(&self.log_dir, slot),
                    entry.settings.error_path(&self.log_dir, slot),
                    entry.settings.combined_path(slot),
                ];
                files.extend(paths.into_iter().flatten().map(|path| (path, access.clone())));
            }
        }
        let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
        Ok(Reply::Flush(count, self.output.flush(files.into_iter().collect())))
    }

    /// Opens all log files anew: somebody else has renamed them.
    pub(crate) fn reopen_logs(&self) {
        tracing::info!("opening all log files anew");
        self.output.reopen();
    }
}
