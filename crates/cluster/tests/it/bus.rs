use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{BusSettings, Client, Keys, OwnName, RedisBus, RedisClock};
use phalanx_core::Generation;
use phalanx_core::backend::{
    Arrival, BackendError, Bus, Letter, LetterKind, Message, MessageKind, Missed, Posted, Recipient, Subscription,
};
use phalanx_testkit::{Proxy, Redis};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

async fn bus() -> (Arc<dyn Bus>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(bus_with(client, keys, ("t", ""), 4096)), redis)
}

phalanx_testkit::bus_laws!(redis: super::bus().await);

/// Bytes of the longest message that is taken.
const LONGEST: usize = 1 << 20;

fn bus_with(client: Client, keys: Keys, (token, previous): (&str, &str), queue: usize) -> RedisBus {
    let (token, previous_token) = (token.to_owned(), previous.to_owned());
    let settings = BusSettings { node: "n".to_owned(), token, previous_token, queue, longest: LONGEST, interop: None };
    RedisBus::new(client, keys, Arc::new(RedisClock::default()), OwnName::default(), settings)
}

/// A node's end of the bus, which listens to some rooms.
struct End {
    bus: RedisBus,
    arrivals: Receiver<Arrival>,
    generation: Generation,
    held: Vec<Subscription>,
}

impl End {
    async fn new(url: &str, tokens: (&str, &str), queue: usize) -> Self {
        let client = Client::open(url, Duration::from_secs(3)).unwrap();
        let bus = bus_with(client, Keys::new("actionhero:", "laws"), tokens, queue);
        let (arrivals, generation) = (bus.receiver().unwrap(), Generation::random());
        bus.appear_as(generation).await.unwrap();
        let mut end = Self { bus, arrivals, generation, held: Vec::new() };
        end.listen("r").await;
        end
    }

    async fn listen(&mut self, room: &str) {
        self.held.push(self.bus.subscribe(&room.into()).await.unwrap());
    }

    async fn say(&self, room: &str, text: &str) -> Result<(), BackendError> {
        let payload = text.to_owned().into();
        self.bus.publish(Message { room: room.into(), kind: MessageKind::Said, who: None, payload }).await
    }

    async fn next(&mut self) -> Arrival {
        timeout(SOON, self.arrivals.recv()).await.expect("something arrives").unwrap()
    }

    async fn call(&self, there: Generation) -> Result<Posted, BackendError> {
        let letter = Letter { kind: LetterKind::Call, id: 7, deadline_ms: None, payload: "{}".into() };
        self.bus.post(Recipient::Node(there), letter).await
    }
}

fn text(arrival: &Arrival) -> Option<&str> {
    match arrival {
        Arrival::Message(message) => std::str::from_utf8(&message.payload).ok(),
        Arrival::Letter(..) | Arrival::Asked(_) | Arrival::Away | Arrival::Gap(_) => None,
    }
}

/// Asks again and again until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < SOON, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until so many are connected to Redis.
async fn connected(redis: &Redis, count: usize) {
    let clients = async || redis.command("CLIENT LIST").await.lines().filter(|line| line.starts_with("id=")).count();
    until("the others are gone", async || clients().await == count).await;
}

#[tokio::test]
async fn a_call_that_was_sent_twice_is_not_said_to_be_undelivered() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let caller = End::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    let mut owner = End::new(&redis.url(), ("t", ""), 100).await;
    let there = owner.generation;
    redis.command(&format!("HSET phalanx:laws:names {there} owner")).await;
    caller.say("elsewhere", "connected").await.unwrap();
    proxy.swallow(":1\r\n"); // that there was a receiver
    let calling = async {
        let posted = caller.call(there).await;
        assert!(matches!(&posted, Err(BackendError::Unavailable(_))), "{posted:?}");
    };
    let breaking = async {
        assert!(matches!(owner.next().await, Arrival::Letter(from, _) if from == caller.generation), "it was heard");
        drop(owner);
        let receivers = format!("PUBSUB NUMSUB laws:node:{there}");
        until("nobody listens any more", async || redis.command(&receivers).await.ends_with(":0\r\n")).await;
        proxy.cut();
        connected(&redis, 1).await; // who asks
        proxy.restore();
    };
    tokio::join!(calling, breaking);
    until("answers would arrive again", async || caller.bus.subscribe(&"again".into()).await.is_ok()).await;
    let posted = caller.call(there).await.unwrap();
    assert_eq!(posted, Posted { received: false, on_record: true }, "one that was sent once is");
}

#[tokio::test]
async fn a_publish_whose_answer_is_swallowed_is_unknown_in_time_and_the_next_goes_through() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let speaker = End::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    let mut listener = End::new(&redis.url(), ("t", ""), 100).await;
    proxy.swallow(":2\r\n");
    let refused = timeout(SOON, speaker.say("r", "unknown")).await.expect("it ends");
    assert!(matches!(refused, Err(BackendError::Unavailable(_))), "{refused:?}");
    proxy.cut();
    connected(&redis, 2).await; // who listens, and who asks
    proxy.restore();
    speaker.say("r", "known").await.unwrap();
    for expected in ["unknown", "known"] {
        assert_eq!(text(&listener.next().await), Some(expected), "each once");
    }
}

#[tokio::test]
async fn a_redis_that_refuses_to_be_pinged_is_there_all_the_same() {
    let redis = Redis::start().await;
    redis.command("ACL SETUSER phalanx -ping").await;
    let speaker = End::new(&redis.url(), ("t", ""), 100).await;
    let mut listener = End::new(&redis.url(), ("t", ""), 100).await;
    until("it was pinged", async || !redis.command("ACL LOG").await.starts_with("*0")).await;
    speaker.say("r", "heard").await.unwrap();
    let heard = listener.next().await;
    assert_eq!(text(&heard), Some("heard"), "and no gap before: {heard:?}");
}

#[tokio::test]
async fn what_is_held_with_a_letter_is_let_go_when_redis_has_the_letter() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut end = End::new(&redis.url_through(proxy.addr()), ("t", ""), 100).await;
    end.say("r", "connected").await.unwrap();
    assert_eq!(text(&end.next().await), Some("connected"));
    proxy.pause();
    let (held, mut let_go) = oneshot::channel::<()>();
    let letter = Letter { kind: LetterKind::Event, id: 0, deadline_ms: None, payload: "{}".into() };
    assert!(end.bus.try_post(Recipient::Everyone, letter, Box::new(held)).is_ok());
    let early = timeout(Duration::from_millis(200), &mut let_go).await;
    assert!(early.is_err(), "redis has nothing: {early:?}");
    proxy.restore();
    assert!(timeout(SOON, let_go).await.expect("it is let go").is_err());
}

#[tokio::test]
async fn what_is_longer_than_any_message_is_passed_over() {
    let redis = Redis::start().await;
    let speaker = End::new(&redis.url(), ("t", ""), 100).await;
    let mut listener = End::new(&redis.url(), ("t", ""), 100).await;
    for length in [LONGEST, LONGEST + 1, 9 * LONGEST] {
        let forged = format!("redis.call('publish', 'laws:room:r', string.rep('x', {length}))");
        assert_eq!(redis.command(&format!("EVAL \"return {forged}\" 0")).await, ":2\r\n");
        speaker.say("r", "after it").await.unwrap();
        assert_eq!(text(&listener.next().await), Some("after it"), "after {length} bytes");
    }
}

#[tokio::test]
async fn while_the_token_is_replaced_in_three_rolls_everybody_hears_everybody() {
    let redis = Redis::start().await;
    let rolls = [("old", ""), ("old", "new"), ("new", "old"), ("new", "")];
    for step in rolls.windows(2) {
        let mut before = End::new(&redis.url(), step[0], 100).await;
        let mut after = End::new(&redis.url(), step[1], 100).await;
        before.say("r", "from before").await.unwrap();
        after.say("r", "from after").await.unwrap();
        for end in [&mut before, &mut after] {
            assert_eq!(text(&end.next().await), Some("from before"), "{step:?}");
            assert_eq!(text(&end.next().await), Some("from after"), "{step:?}");
        }
    }
}

#[tokio::test]
async fn who_asked_hears_at_once_that_the_subscription_is_lost_and_of_the_gap_before_the_next_message() {
    const ROOMS: usize = 1200; // more than one command subscribes to
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let mut listener = End::new(&redis.url_through(proxy.addr()), ("t", ""), 100_000).await;
    for room in 0..ROOMS {
        listener.listen(&room.to_string()).await;
    }
    let speaker = End::new(&redis.url(), ("t", ""), 100_000).await;
    proxy.delay(Duration::from_millis(30)); // between the first rooms and the last
    proxy.cut();
    assert!(matches!(listener.next().await, Arrival::Away));
    proxy.restore();
    let speaking = async {
        for room in (0..ROOMS).cycle() {
            speaker.say(&room.to_string(), "hello").await.unwrap();
        }
    };
    let listening = async {
        let first = listener.next().await;
        assert!(matches!(first, Arrival::Gap(Missed::Away)), "{first:?}");
        while !matches!(listener.next().await, Arrival::Gap(Missed::Away)) {} // what was missed by rooms that came later
    };
    tokio::select! {
        () = speaking => {}
        () = listening => {}
    }
}

#[tokio::test]
async fn a_queue_that_stays_full_makes_one_gap() {
    const QUEUE: usize = 8;
    let redis = Redis::start().await;
    let speaker = End::new(&redis.url(), ("t", ""), 100).await;
    let mut slow = End::new(&redis.url(), ("t", ""), QUEUE).await;
    for _ in 0..2 * QUEUE {
        speaker.say("r", "too much").await.unwrap();
    }
    until("the queue is full", async || slow.arrivals.len() == QUEUE).await;
    let mut gaps = 0;
    for number in 0..2 * QUEUE {
        gaps += usize::from(matches!(slow.next().await, Arrival::Gap(Missed::Overflow)));
        speaker.say("r", &number.to_string()).await.unwrap();
    }
    while text(&slow.next().await) != Some("15") {}
    assert_eq!(gaps, 1);
}
