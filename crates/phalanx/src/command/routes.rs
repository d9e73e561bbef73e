//! The command `routes`: the HTTP routes of actions.

use clap::Command;
use phalanx_core::registry::{Registry, path_of};
use serde_json::json;

use super::output::Printed;
use super::{json_option, table};

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    Command::new("routes").about("Prints the HTTP routes of actions").arg(json_option())
}

/// The routes of all actions, by path and method.
pub(crate) fn routes(registry: &Registry, prefix: &str) -> Printed {
    let prefix = prefix.trim_end_matches('/');
    let of_actions = registry.actions().flat_map(|action| {
        let def = action.def;
        def.routes.iter().map(move |route| (path_of(def, route), route.method.as_str(), def.name, def.version))
    });
    let mut all: Vec<_> = of_actions.collect();
    all.sort_unstable();
    let mut rows = vec![["METHOD", "PATH", "ACTION", "VERSION"].map(str::to_owned)];
    let mut routes = Vec::new();
    for (path, method, action, version) in all {
        let path = format!("{prefix}{path}");
        routes.push(json!({ "method": method, "path": path, "action": action, "version": version }));
        rows.push([method.to_owned(), path, action.to_owned(), version.to_string()]);
    }
    Printed { text: table::align(&rows), lines: vec![json!({ "routes": routes })], ..Printed::default() }
}
