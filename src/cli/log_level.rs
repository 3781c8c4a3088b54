//! `log-level`: shows or changes the log level of the running server.

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::admin::AdminPort;
use super::args::LogLevelArgs;
use super::{CommandError, View, show};

#[derive(Debug, Serialize)]
struct LogLevelView {
    level: String,
    before: String,
    #[serde(skip)]
    is_changed: bool,
}

impl View for LogLevelView {
    fn text(&self) -> String {
        let Self { level, before, is_changed } = self;
        match is_changed {
            true => format!("log level {level}, before {before}"),
            false => format!("log level {level}"),
        }
    }
}

pub(super) fn run(args: &LogLevelArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    let level = args.level.map_or("", |level| level.as_str());
    let request = pb::SetLogLevelRequest { level: level.to_owned() };
    let answer =
        port.call("log level", request, async |admin, request| admin.set_log_level(request).await)?;
    let pb::SetLogLevelResponse { level, before } = answer;
    show(&LogLevelView { level, before, is_changed: args.level.is_some() }, args.admin.json)
}
