//! The checks of limits.

use std::sync::Arc;

use super::DefinitionErrors;
use crate::action::Exposure;
use crate::call::gate::GateLimit;
use crate::config::LimitSettings;
use crate::group::GroupedAction;
use crate::limit::Limit;

/// The limits of an application, each name once.
#[derive(Default)]
pub(super) struct LimitTable(Vec<Arc<Limit>>);

impl LimitTable {
    /// The limits of an action: those of its groups, then its own. One that it has twice counts a call once.
    pub(super) fn of(&mut self, action: &GroupedAction, errors: &mut DefinitionErrors) -> Vec<GateLimit> {
        let of_groups = action.groups.iter().flat_map(|group| &group.limits).cloned();
        let mut limits: Vec<GateLimit> = Vec::new();
        let own = (action.def.limits)();
        if action.def.exposure == Exposure::Internal && !own.is_empty() {
            errors
                .add(format!("action {:?} is internal and has a limit: only calls of clients count", action.def.name));
        }
        for limit in of_groups.chain(own) {
            let limit = self.entry(limit, errors);
            if limits.iter().all(|other| other.index != limit.index) {
                limits.push(limit);
            }
        }
        limits
    }

    fn entry(&mut self, limit: Limit, errors: &mut DefinitionErrors) -> GateLimit {
        // Settings name limits in any case, as variables of the environment do.
        if let Some(index) = self.0.iter().position(|known| known.name().eq_ignore_ascii_case(limit.name())) {
            let known = &self.0[index];
            if known.name() != limit.name() || !known.is_like(&limit) {
                errors.add(format!("two limits have one name and differ, {known} and {limit}: rename one of them"));
            }
            // Each has its own function for the key of a call.
            return GateLimit { index, limit: Arc::new(limit) };
        }
        if let Some(mistake) = limit.mistake() {
            errors.add(format!("the limit {:?}: {mistake}", limit.name()));
        }
        let (index, limit) = (self.0.len(), Arc::new(limit));
        self.0.push(limit.clone());
        GateLimit { index, limit }
    }

    pub(super) fn into_limits(self) -> Box<[Arc<Limit>]> {
        self.0.into()
    }
}

/// Checks that the application has the limits that settings name.
pub(super) fn check_settings(limits: &[Arc<Limit>], settings: &LimitSettings, errors: &mut DefinitionErrors) {
    for name in settings.named.keys().filter(|name| limits.iter().all(|limit| !limit.name().eq_ignore_ascii_case(name)))
    {
        let known: Vec<&str> = limits.iter().map(|limit| limit.name()).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        errors.add(format!("[limits] {name}: the application has no limit of this name, {known}"));
    }
}
