//! Panics on the threads of an application, also of code whose panics a node catches: they fail its test.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;

use crate::logging::panics::message;

/// Most panics that are listed; later ones are counted.
const LISTED: usize = 20;

thread_local! {
    /// The list of the application that runs on this thread.
    static OWN: RefCell<Option<Arc<PanicList>>> = const { RefCell::new(None) };
}

/// The panics of an application.
#[derive(Debug, Default)]
pub(super) struct PanicList(Mutex<Vec<String>>);

impl PanicList {
    /// Prepares the process to list panics. The hook that is there, such as the one of the test framework, still runs.
    pub(super) fn install_hook() {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let earlier = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                let own = OWN.try_with(|own| own.try_borrow().ok().and_then(|own| own.clone()));
                if let Ok(Some(own)) = own {
                    own.add(panic);
                }
                earlier(panic);
            }));
        });
    }

    /// Lists panics of this thread from now on.
    pub(super) fn adopt_thread(self: &Arc<Self>) {
        OWN.set(Some(self.clone()));
    }

    /// Takes the list.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A sentence about the panics so far for the message of another failure; empty if there are none.
    pub(super) fn note(&self) -> String {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_empty() { String::new() } else { format!("\nthe application panicked:\n  {}", list.join("\n  ")) }
    }

    fn add(&self, panic: &PanicHookInfo<'_>) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match list.len() {
            ..LISTED => {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                let thread = thread::current();
                let name = thread.name().unwrap_or("without a name");
                list.push(format!("{place} (thread {name}): {}", message(panic.payload())));
            }
            LISTED => list.push("and more".to_owned()),
            _ => {}
        }
    }
}
