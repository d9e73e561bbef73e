//! The channels that are wanted, each with its state.
//!
//! A node may have 100,000 channels and more, most of them of tags. So no step looks at all of them, except after a
//! connection broke: those that are to be subscribed wait in a queue, and so do those whose pause runs.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::BackendError;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a channel without a handle remains subscribed.
const LINGER: Duration = Duration::from_secs(5);

/// How long a channel that Redis refused is not requested again.
const REFUSED: Duration = Duration::from_millis(500);

/// The outcome of a subscription, for a caller that waits for it.
pub(super) type Confirmed = oneshot::Receiver<Result<(), BackendError>>;

#[derive(Default)]
struct Channel {
    /// The number of handles.
    handles: usize,
    state: ChannelState,
    /// Redis has confirmed the subscription on this connection.
    is_confirmed: bool,
    /// It was confirmed on an earlier connection, and the gap since then is not added yet.
    has_gap: bool,
    /// Callers that wait for the confirmation of the subscription.
    waiting: Vec<oneshot::Sender<Result<(), BackendError>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChannelState {
    #[default]
    Unsubscribed,
    /// Redis refused the subscription; it is requested again at this time.
    Refused(Instant),
    Subscribing,
    Subscribed,
    Lingering(Instant),
    Unsubscribing,
}

/// All channels. An entry of a queue counts only as long as its channel is in the state that it was queued in.
#[derive(Default)]
pub(super) struct ChannelTable {
    all: HashMap<Arc<str>, Channel>,
    /// Those to subscribe to. Without a connection there are none, and with the next one all.
    wanted: VecDeque<Arc<str>>,
    /// Those that Redis refused, in the order in which they are requested again.
    refused: VecDeque<(Instant, Arc<str>)>,
    /// Those without a handle, in the order in which their pauses end.
    lingering: VecDeque<(Instant, Arc<str>)>,
    is_connected: bool,
}

impl ChannelTable {
    /// Remains subscribed to the `permanent` channels.
    pub(super) fn new(permanent: &[Arc<str>]) -> Self {
        let wanted = permanent.iter().map(|name| (name.clone(), Channel { handles: 1, ..Channel::default() }));
        Self { all: wanted.collect(), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds a handle. Returns the name, of which there is one copy, and what to wait for unless the channel is already
    /// subscribed.
    pub(super) fn add_handle(&mut self, name: Arc<str>) -> (Arc<str>, Option<Confirmed>) {
        let name = self.all.get_key_value(&name).map_or(name, |(known, _)| known.clone());
        let channel = self.all.entry(name.clone()).or_default();
        let is_new = channel.handles == 0;
        channel.handles += 1;
        if let ChannelState::Subscribed | ChannelState::Lingering(_) = channel.state {
            channel.state = ChannelState::Subscribed;
            return (name, None);
        }
        let is_refused = matches!(channel.state, ChannelState::Refused(_));
        if is_refused {
            channel.state = ChannelState::Unsubscribed;
        }
        let (confirm, confirmed) = oneshot::channel();
        channel.waiting.retain(|waiting| !waiting.is_closed());
        channel.waiting.push(confirm);
        if self.is_connected && channel.state == ChannelState::Unsubscribed && (is_new || is_refused) {
            self.wanted.push_back(name.clone());
        }
        (name, Some(confirmed))
    }

    /// Removes a handle; without any the channel is unsubscribed after a pause.
    pub(super) fn remove_handle(&mut self, name: &Arc<str>) {
        let Some(channel) = self.all.get_mut(name) else { return };
        channel.handles -= 1;
        if channel.handles > 0 {
            return;
        }
        match channel.state {
            ChannelState::Subscribed => self.linger(name),
            ChannelState::Unsubscribed | ChannelState::Refused(_) => drop(self.all.remove(name)),
            // A command is on its way, or the pause already runs: the task decides when it gets the reply.
            ChannelState::Subscribing | ChannelState::Lingering(_) | ChannelState::Unsubscribing => {}
        }
    }

    fn linger(&mut self, name: &Arc<str>) {
        let until = Instant::now() + LINGER;
        if let Some(channel) = self.all.get_mut(name) {
            channel.state = ChannelState::Lingering(until);
            self.lingering.push_back((until, name.clone()));
        }
    }

    /// The next channels to subscribe to, `most` at a time.
    pub(super) fn take_wanted(&mut self, now: Instant, most: usize) -> Vec<Arc<str>> {
        while let Some((until, name)) = pop_due(&mut self.refused, now) {
            if let Some(channel) = self.all.get_mut(&name)
                && channel.state == ChannelState::Refused(until)
            {
                channel.state = ChannelState::Unsubscribed;
                self.wanted.push_back(name);
            }
        }
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(name) = self.wanted.pop_front()
        {
            if let Some(channel) = self.all.get_mut(&name)
                && channel.state == ChannelState::Unsubscribed
                && channel.handles > 0
            {
                channel.state = ChannelState::Subscribing;
                taken.push(name);
            }
        }
        taken
    }

    /// The next channels to unsubscribe from, `most` at a time.
    pub(super) fn take_unwanted(&mut self, now: Instant, most: usize) -> Vec<Arc<str>> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((until, name)) = pop_due(&mut self.lingering, now)
        {
            if let Some(channel) = self.all.get_mut(&name)
                && channel.state == ChannelState::Lingering(until)
            {
                channel.state = ChannelState::Unsubscribing;
                taken.push(name);
            }
        }
        taken
    }

    pub(super) fn set_subscribed(&mut self, names: &[Arc<str>]) {
        for name in names {
            let Some(channel) = self.all.get_mut(name) else { continue };
            // A caller that timed out has dropped its handle as well, so the channel may be without one.
            for waiting in channel.waiting.drain(..) {
                let _ = waiting.send(Ok(()));
            }
            match channel.handles {
                0 => self.linger(name),
                _ => channel.state = ChannelState::Subscribed,
            }
        }
    }

    pub(super) fn set_refused(&mut self, names: &[Arc<str>], error: impl Fn() -> BackendError) {
        let until = Instant::now() + REFUSED;
        for name in names {
            let Some(channel) = self.all.get_mut(name) else { continue };
            channel.waiting.drain(..).for_each(|waiting| drop(waiting.send(Err(error()))));
            match channel.handles {
                0 => drop(self.all.remove(name)),
                _ => {
                    channel.state = ChannelState::Refused(until);
                    self.refused.push_back((until, name.clone()));
                }
            }
        }
    }

    /// Ends the wait of all callers: Redis refuses what comes before any subscription.
    pub(super) fn refuse_all(&mut self, error: impl Fn() -> BackendError) {
        for channel in self.all.values_mut() {
            channel.waiting.drain(..).for_each(|waiting| drop(waiting.send(Err(error()))));
        }
    }

    /// Records that the reader has received the confirmation of a subscription. Returns whether messages were missed
    /// since an earlier one.
    pub(super) fn confirm(&mut self, name: &str) -> bool {
        let Some(channel) = self.all.get_mut(name) else { return false };
        channel.is_confirmed = true;
        mem::take(&mut channel.has_gap)
    }

    /// Whether messages of a channel were missed, and the gap comes with the confirmation of its subscription.
    pub(super) fn has_gap(&self, name: &str) -> bool {
        self.all.get(name).is_some_and(|channel| channel.has_gap)
    }

    pub(super) fn set_unsubscribed(&mut self, names: &[Arc<str>]) {
        for name in names {
            let Some(channel) = self.all.get_mut(name) else { continue };
            if channel.handles == 0 {
                self.all.remove(name);
            } else {
                (channel.state, channel.is_confirmed) = (ChannelState::Unsubscribed, false);
                self.wanted.push_back(name.clone()); // it was wanted again meanwhile
            }
        }
    }

    /// Has all channels subscribed on a new connection.
    pub(super) fn begin(&mut self) {
        self.is_connected = true;
        self.wanted = self.all.keys().cloned().collect();
    }

    /// Resets all channels after a connection broke: the next one has no subscriptions.
    pub(super) fn reset(&mut self) {
        self.is_connected = false;
        (self.wanted, self.refused, self.lingering) = Default::default();
        self.all.retain(|_, channel| {
            channel.state = ChannelState::Unsubscribed;
            channel.has_gap |= mem::take(&mut channel.is_confirmed);
            channel.handles > 0
        });
    }
}

fn pop_due(queue: &mut VecDeque<(Instant, Arc<str>)>, now: Instant) -> Option<(Instant, Arc<str>)> {
    queue.front().filter(|(until, _)| *until <= now)?;
    queue.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 100;

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    /// A table with a connection, and its one channel subscribed.
    fn subscribed(text: &str) -> ChannelTable {
        let mut channels = ChannelTable::new(&[]);
        channels.begin();
        channels.add_handle(name(text));
        subscribe_all(&mut channels);
        channels
    }

    fn subscribe_all(channels: &mut ChannelTable) -> Vec<Arc<str>> {
        let taken = channels.take_wanted(Instant::now(), MANY);
        channels.set_subscribed(&taken);
        taken
    }

    fn unavailable() -> BackendError {
        BackendError::unavailable("refused")
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_is_subscribed_once_and_lingers_without_handles() {
        let mut channels = subscribed("a");
        let (a, confirmed) = channels.add_handle(name("a"));
        assert!(confirmed.is_none(), "it is subscribed");
        channels.remove_handle(&a);
        channels.remove_handle(&a);
        assert!(channels.take_unwanted(Instant::now() + LINGER / 2, MANY).is_empty());
        assert!(channels.add_handle(name("a")).1.is_none(), "within the pause it is subscribed still");
        assert!(channels.take_unwanted(Instant::now() + 2 * LINGER, MANY).is_empty());
        channels.remove_handle(&a);
        let unwanted = channels.take_unwanted(Instant::now() + LINGER, MANY);
        assert_eq!(unwanted, [name("a")]);
        let (_, confirmed) = channels.add_handle(name("a"));
        assert!(
            confirmed.is_some() && channels.take_wanted(Instant::now(), MANY).is_empty(),
            "a command is on its way"
        );
        channels.set_unsubscribed(&unwanted);
        assert_eq!(subscribe_all(&mut channels), [name("a")], "it is wanted again");
        confirmed.unwrap().await.unwrap().unwrap();
        channels.remove_handle(&a);
        let unwanted = channels.take_unwanted(Instant::now() + LINGER, MANY);
        channels.set_unsubscribed(&unwanted);
        assert_eq!(channels.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_connection_broke_all_wanted_channels_are_subscribed_and_their_gaps_known() {
        let mut channels = ChannelTable::new(&[name("permanent")]);
        assert!(channels.take_wanted(Instant::now(), MANY).is_empty(), "there is no connection");
        let (early, waits) = channels.add_handle(name("early"));
        channels.begin();
        channels.add_handle(name("late"));
        let mut taken = channels.take_wanted(Instant::now(), 2);
        assert_eq!(taken.len(), 2, "so many at a time");
        taken.extend(channels.take_wanted(Instant::now(), 2));
        taken.sort();
        assert_eq!(taken, [early.clone(), name("late"), name("permanent")]);
        channels.set_subscribed(&taken);
        waits.unwrap().await.unwrap().unwrap();
        assert!(!channels.confirm("early"), "nothing was missed before the first subscription");
        channels.remove_handle(&name("late"));
        channels.reset();
        assert_eq!(channels.len(), 2, "that without a handle is forgotten");
        assert!(channels.has_gap("early") && !channels.has_gap("permanent"), "the other was never confirmed");
        assert!(channels.take_wanted(Instant::now(), MANY).is_empty());
        channels.begin();
        assert_eq!(subscribe_all(&mut channels).len(), 2);
        assert!(channels.confirm("early") && !channels.confirm("early"), "one gap");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_channel_is_requested_again_after_a_pause_or_by_the_next_handle() {
        let mut channels = ChannelTable::new(&[]);
        channels.begin();
        let (a, confirmed) = channels.add_handle(name("a"));
        let taken = channels.take_wanted(Instant::now(), MANY);
        channels.set_refused(&taken, unavailable);
        confirmed.unwrap().await.unwrap().unwrap_err();
        assert!(channels.take_wanted(Instant::now(), MANY).is_empty());
        let taken = channels.take_wanted(Instant::now() + REFUSED, MANY);
        assert_eq!(taken, [name("a")]);
        channels.set_refused(&taken, unavailable);
        channels.add_handle(name("a"));
        let taken = channels.take_wanted(Instant::now(), MANY);
        assert_eq!(taken, [name("a")], "at once");
        assert!(channels.take_wanted(Instant::now() + 2 * REFUSED, MANY).is_empty(), "and once");
        channels.remove_handle(&a);
        channels.remove_handle(&a);
        channels.set_refused(&taken, unavailable);
        assert_eq!(channels.len(), 0, "without a handle it is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_no_longer_waits_leaves_its_channel_lingering() {
        let mut channels = ChannelTable::new(&[]);
        channels.begin();
        let (a, _) = channels.add_handle(name("a"));
        let taken = channels.take_wanted(Instant::now(), MANY);
        channels.remove_handle(&a);
        channels.set_subscribed(&taken);
        assert!(channels.take_unwanted(Instant::now(), MANY).is_empty());
        assert_eq!(channels.take_unwanted(Instant::now() + LINGER, MANY), [a]);
    }
}
