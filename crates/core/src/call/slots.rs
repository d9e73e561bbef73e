//! The values that the parts of one call share: guards, groups, the function, and the calls that it makes.

use std::any::Any;
use std::fmt;
use std::sync::OnceLock;

/// Values of one call, at most one of each type.
///
/// A list without a lock, to which values are only added: a value that is being loaded, and one that it needs for
/// that, never wait for each other. A call that uses none has nothing allocated. Each type keeps its own rules inside of
/// its value, such as a `tokio::sync::OnceCell` for one that is loaded once.
///
/// A value must not keep a [`Context`](crate::Context), which owns the list.
#[derive(Default)]
pub(crate) struct CallSlots(OnceLock<Box<CallSlot<dyn Any + Send + Sync>>>);

struct CallSlot<T: ?Sized> {
    next: CallSlots,
    value: T,
}

impl CallSlots {
    /// The value of that type. It is made by `T::default`, which must not ask for a slot of the same call.
    pub(crate) fn get<T: Default + Send + Sync + 'static>(&self) -> &T {
        let mut slots = self;
        loop {
            let slot = slots.0.get_or_init(|| Box::new(CallSlot { next: Self::default(), value: T::default() }));
            match slot.value.downcast_ref() {
                Some(value) => return value,
                None => slots = &slot.next,
            }
        }
    }
}

impl fmt::Debug for CallSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "CallSlots(..)" } else { "CallSlots" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use tokio::sync::OnceCell;

    use super::*;

    #[derive(Default)]
    struct Session(OnceCell<u32>);

    #[derive(Default)]
    struct User(OnceCell<u32>);

    #[derive(Default)]
    struct Reads(AtomicU32);

    async fn session(slots: &CallSlots) -> u32 {
        let load = || async {
            tokio::task::yield_now().await;
            slots.get::<Reads>().0.fetch_add(1, SeqCst);
            7
        };
        *slots.get::<Session>().0.get_or_init(load).await
    }

    /// A guard that asks for another one while it loads.
    async fn user(slots: &CallSlots) -> u32 {
        *slots.get::<User>().0.get_or_init(|| async { session(slots).await + 1 }).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_value_is_loaded_once_and_one_that_asks_for_another_waits_for_nothing_else() {
        for _ in 0..200 {
            let slots = Arc::new(CallSlots::default());
            let tasks: Vec<_> = (0..8)
                .map(|turn| {
                    let slots = slots.clone();
                    tokio::spawn(
                        async move { if turn % 2 == 0 { user(&slots).await } else { session(&slots).await + 1 } },
                    )
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap(), 8);
            }
            assert_eq!(slots.get::<Reads>().0.load(SeqCst), 1);
        }
    }

    #[test]
    fn a_call_that_uses_none_has_none() {
        let slots = CallSlots::default();
        assert!(slots.0.get().is_none());
        assert!(size_of::<CallSlots>() <= 24);
    }
}
