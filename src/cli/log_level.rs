//! `log-level`: what the running server logs.

use inventory_proto::inventory::v1 as pb;
use serde_json::json;

use super::admin::AdminPort;
use super::args::LogLevelArgs;
use super::{CommandError, say, say_json};

pub(super) fn run(args: &LogLevelArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    let level = args.level.map_or("", |level| level.as_str());
    let request = pb::SetLogLevelRequest { level: level.to_owned() };
    let told =
        port.call("log level", request, async |admin, request| admin.set_log_level(request).await)?;
    let pb::SetLogLevelResponse { level, before } = told;
    if args.admin.json {
        say_json(&json!({ "level": level, "before": before }));
    } else if args.level.is_some() {
        say(&format!("log level {level}, before {before}\n"));
    } else {
        say(&format!("log level {level}\n"));
    }
    Ok(())
}
