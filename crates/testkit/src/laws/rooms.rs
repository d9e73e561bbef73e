//! Laws of rooms and their members.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use phalanx_core::backend::{
    CreateOutcome, HeldMember, JoinOutcome, LeaveOutcome, Member, Members, MembersCursor, RelistOutcome, Relisting,
    RoomStore, StoredMember,
};
use phalanx_core::{ConnectionId, Generation, Incarnation};
use tokio::task::JoinSet;

/// Turns each law of rooms into a test: `room_laws!(memory: make())`.
#[macro_export]
macro_rules! room_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            rooms,
            $backend,
            $make,
            [
                a_room_exists_from_creation_to_close,
                the_number_of_rooms_is_limited,
                a_member_joins_once_and_leaves_once,
                a_member_that_its_own_node_lists_again_is_replaced,
                a_member_of_another_live_node_is_kept,
                a_leave_of_an_earlier_membership_changes_nothing,
                members_are_listed_up_to_a_limit_and_all_counted,
                every_member_that_stays_is_on_a_page,
                a_page_goes_on_where_the_one_before_ended,
                a_closed_room_keeps_its_incarnation_until_it_is_forgotten,
                a_recreated_room_has_another_incarnation_and_no_members,
                a_join_that_arrives_after_its_undo_is_late,
                a_late_undo_keeps_a_later_membership,
                a_member_that_is_listed_as_its_node_holds_it_is_kept,
                a_member_that_is_missing_is_listed_with_its_room_and_its_time,
                a_room_that_was_closed_is_not_created_again_for_its_members,
                an_incarnation_without_evidence_of_an_end_is_taken_over,
                a_member_that_a_reaper_removed_joins_anew,
                a_listing_that_arrives_after_a_later_pass_is_refused,
                stored_members_are_removed_only_as_they_were_read,
                no_concurrent_join_is_lost,
            ]
        );
    };
}

type SharedRooms = Arc<dyn RoomStore>;

fn member(number: u64) -> Member {
    let id = ConnectionId::parse(&format!("AAAAAAAAAA-{number}")).expect("letters and digits");
    Member { id, joined_at: 1000 + number }
}

/// The node of most members. Both nodes of the laws must be registered where the store checks that.
pub fn node() -> Generation {
    Generation::parse("aaaaaaaaaa").expect("ten characters of base32")
}

/// The other node.
pub fn other_node() -> Generation {
    Generation::parse("bbbbbbbbbb").expect("ten characters of base32")
}

/// The number of the next join.
fn next() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

async fn join(store: &SharedRooms, member: &Member) -> JoinOutcome {
    store.join("r", member, node(), next()).await.expect("the backend answers")
}

async fn leave(store: &SharedRooms, room: &str, member: &Member, incarnation: Incarnation) -> LeaveOutcome {
    store.leave(room, member, incarnation, node()).await.expect("the backend answers")
}

async fn listed(store: &SharedRooms) -> Vec<Member> {
    let mut all = store.members("r", 10).await.expect("the backend answers").expect("the room exists").listed;
    all.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    all
}

async fn create(store: &SharedRooms, room: &str) {
    assert_eq!(store.create(room, 1000).await.expect("the backend answers"), CreateOutcome::New);
}

/// And is listed for as long.
pub async fn a_room_exists_from_creation_to_close(store: SharedRooms) {
    assert!(!store.exists("r").await.expect("the backend answers"));
    create(&store, "r").await;
    assert_eq!(store.create("r", 1000).await.expect("the backend answers"), CreateOutcome::Existing);
    assert!(store.exists("r").await.expect("the backend answers"));
    assert_eq!(store.list().await.expect("the backend answers"), ["r"]);
    assert!(store.close("r").await.expect("the backend answers").is_some());
    assert!(!store.exists("r").await.expect("the backend answers"));
    assert_eq!(store.list().await.expect("the backend answers"), [""; 0]);
    assert_eq!(store.members("r", 10).await.expect("the backend answers"), None);
}

/// A room that exists is found even if the limit is reached.
pub async fn the_number_of_rooms_is_limited(store: SharedRooms) {
    assert_eq!(store.create("a", 2).await.expect("the backend answers"), CreateOutcome::New);
    assert_eq!(store.create("b", 2).await.expect("the backend answers"), CreateOutcome::New);
    assert_eq!(store.create("c", 2).await.expect("the backend answers"), CreateOutcome::Full);
    assert_eq!(store.create("a", 2).await.expect("the backend answers"), CreateOutcome::Existing);
}

/// A room that does not exist has no members.
pub async fn a_member_joins_once_and_leaves_once(store: SharedRooms) {
    let one = member(1);
    assert_eq!(store.join("r", &one, node(), next()).await.expect("the backend answers"), JoinOutcome::NoRoom);
    create(&store, "r").await;
    let JoinOutcome::New(incarnation) = join(&store, &one).await else { panic!("the room was empty") };
    assert_eq!(leave(&store, "r", &one, incarnation).await, LeaveOutcome::Removed);
    assert_eq!(leave(&store, "r", &one, incarnation).await, LeaveOutcome::Lost);
    assert_eq!(leave(&store, "nowhere", &one, incarnation).await, LeaveOutcome::Lost);
    store.close("r").await.expect("the backend answers");
    assert_eq!(leave(&store, "r", &one, incarnation).await, LeaveOutcome::Destroyed);
    create(&store, "r").await;
    let JoinOutcome::New(next) = join(&store, &one).await else { panic!("the room is new") };
    let earlier = Member { joined_at: 1, ..one.clone() };
    assert_eq!(leave(&store, "r", &earlier, incarnation).await, LeaveOutcome::Destroyed);
    assert_eq!(leave(&store, "r", &earlier, next).await, LeaveOutcome::Lost);
    assert_eq!(leave(&store, "r", &one, next).await, LeaveOutcome::Removed);
}

/// Such a leave arrives late if the backend was unavailable.
pub async fn a_leave_of_an_earlier_membership_changes_nothing(store: SharedRooms) {
    create(&store, "r").await;
    let (earlier, later) = (member(1), Member { joined_at: 2000, ..member(1) });
    store.join("r", &later, node(), next()).await.expect("the backend answers");
    assert_eq!(leave(&store, "r", &earlier, Incarnation(1)).await, LeaveOutcome::Lost);
    assert_eq!(leave(&store, "r", &later, Incarnation(1)).await, LeaveOutcome::Removed);
}

/// Each with the time at which it joined.
pub async fn members_are_listed_up_to_a_limit_and_all_counted(store: SharedRooms) {
    create(&store, "r").await;
    for number in 0..10 {
        store.join("r", &member(number), node(), next()).await.expect("the backend answers");
    }
    let some = store.members("r", 3).await.expect("the backend answers").expect("the room exists");
    assert_eq!((some.listed.len(), some.count), (3, 10));
    let mut all = store.members("r", 100).await.expect("the backend answers").expect("the room exists").listed;
    all.sort_by_key(|member| member.joined_at);
    assert_eq!(all, (0..10).map(member).collect::<Vec<_>>());
}

async fn page(store: &SharedRooms, after: Option<&MembersCursor>, max: usize) -> Members {
    store.members_page("r", after, max).await.expect("the backend answers").expect("the room exists")
}

/// Even while others join and leave, and the room grows and shrinks to a multiple and back.
pub async fn every_member_that_stays_is_on_a_page(store: SharedRooms) {
    assert_eq!(store.members_page("r", None, 10).await.expect("the backend answers"), None);
    create(&store, "r").await;
    assert_eq!(page(&store, None, 10).await, Members::default());
    for number in 0..130 {
        join(&store, &member(number)).await;
    }
    for (max, changes) in
        [(1, 0), (7, 0), (50, 0), (100, 0), (131, 0), (1000, 0), (7, 1), (20, 40), (50, 300), (100, 900)]
    {
        let (mut listed, mut after, mut pages) = (HashSet::new(), None, 0_u64);
        loop {
            let Members { listed: some, count, next } = page(&store, after.as_ref(), max).await;
            assert!(some.len() <= max && (changes > 0 || count == 130), "{max}: {} of {count}", some.len());
            listed.extend(some.into_iter().map(|member| member.id)); // servers may list one again while they rehash
            pages += 1;
            assert!(pages < 300, "pages of {max} come to an end");
            let Some(next) = next else { break };
            assert_eq!(next.to_string().parse::<MembersCursor>().expect("it was written"), next);
            after = Some(next);
            for number in 0..changes {
                let visitor = member(1000 + number);
                if pages % 2 == 1 {
                    join(&store, &visitor).await;
                } else {
                    leave(&store, "r", &visitor, Incarnation(1)).await;
                }
            }
        }
        let missing: Vec<u64> = (0..130).filter(|number| !listed.contains(&member(*number).id)).collect();
        assert_eq!((missing, max < 130), (vec![], pages > 1), "pages of {max}");
        for number in 0..changes {
            leave(&store, "r", &member(1000 + number), Incarnation(1)).await;
        }
    }
}

/// A member that was listed on it may have left meanwhile: none is passed over for that.
pub async fn a_page_goes_on_where_the_one_before_ended(store: SharedRooms) {
    create(&store, "r").await;
    for number in 0..40 {
        join(&store, &member(number)).await;
    }
    let (mut listed, mut after) = (HashSet::new(), None);
    loop {
        let Members { listed: some, next, .. } = page(&store, after.as_ref(), 3).await;
        for member in some {
            assert_eq!(
                leave(&store, "r", &member, Incarnation(1)).await,
                LeaveOutcome::Removed,
                "it was not listed before"
            );
            listed.insert(member.id);
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!((listed.len(), page(&store, None, 3).await.count), (40, 0));
}

/// So that destroying it can be repeated.
pub async fn a_closed_room_keeps_its_incarnation_until_it_is_forgotten(store: SharedRooms) {
    assert_eq!(store.close("r").await.expect("the backend answers"), None);
    create(&store, "r").await;
    let JoinOutcome::New(incarnation) = join(&store, &member(1)).await else { panic!("the room was empty") };
    for _ in 0..2 {
        assert_eq!(store.close("r").await.expect("the backend answers"), Some(incarnation));
        assert_eq!(join(&store, &member(2)).await, JoinOutcome::NoRoom);
        assert_eq!(store.members("r", 10).await.expect("the backend answers"), None);
    }
    store.forget("r", Incarnation(incarnation.0 + 1)).await.expect("the backend answers");
    assert_eq!(store.close("r").await.expect("the backend answers"), Some(incarnation));
    store.forget("r", incarnation).await.expect("the backend answers");
    assert_eq!(store.close("r").await.expect("the backend answers"), None);
}

/// Also while the previous room is not forgotten, and after it is forgotten late.
pub async fn a_recreated_room_has_another_incarnation_and_no_members(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(first) = join(&store, &member(1)).await else { panic!("the room was empty") };
    assert_eq!(store.close("r").await.expect("the backend answers"), Some(first));
    create(&store, "r").await;
    assert_eq!(listed(&store).await, []);
    let JoinOutcome::New(second) = join(&store, &member(1)).await else { panic!("the room was empty") };
    assert_ne!(first, second);
    store.forget("r", first).await.expect("the backend answers");
    assert_eq!(listed(&store).await, [member(1)]);
    assert_eq!(store.close("r").await.expect("the backend answers"), Some(second));
}

/// Such as when the reply to the first join was lost, or the node has a new generation.
pub async fn a_member_that_its_own_node_lists_again_is_replaced(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(incarnation) = join(&store, &member(1)).await else { panic!("the room was empty") };
    let later = Member { joined_at: 2000, ..member(1) };
    assert_eq!(join(&store, &later).await, JoinOutcome::Replaced(incarnation));
    assert_eq!(listed(&store).await, [later]);
}

/// Two connections have the same id only if the application assigns ids.
pub async fn a_member_of_another_live_node_is_kept(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(incarnation) = join(&store, &member(1)).await else { panic!("the room was empty") };
    let later = Member { joined_at: 2000, ..member(1) };
    assert_eq!(
        store.join("r", &later, other_node(), next()).await.expect("the backend answers"),
        JoinOutcome::Elsewhere(incarnation)
    );
    assert_eq!(listed(&store).await, [member(1)]);
}

/// As are those with lower numbers, which may come from the same lost connection. Those of other nodes are not.
pub async fn a_join_that_arrives_after_its_undo_is_late(store: SharedRooms) {
    create(&store, "r").await;
    let (earlier, given_up) = (next(), next());
    for _ in 0..2 {
        store.undo_join("r", &member(1), node(), given_up).await.expect("the backend answers");
        for number in [given_up, earlier] {
            let joined = store.join("r", &member(1), node(), number).await;
            assert_eq!(joined.expect("the backend answers"), JoinOutcome::Late);
        }
        assert_eq!(listed(&store).await, []);
    }
    let elsewhere = store.join("r", &member(2), other_node(), earlier).await;
    assert!(matches!(elsewhere.expect("the backend answers"), JoinOutcome::New(_)));
    assert!(matches!(join(&store, &member(1)).await, JoinOutcome::New(_)));
}

/// Its own join is undone if it was done, also if it was answered.
pub async fn a_late_undo_keeps_a_later_membership(store: SharedRooms) {
    create(&store, "r").await;
    let (given_up, later) = (next(), Member { joined_at: 2000, ..member(1) });
    for member in [member(1), member(2)] {
        store.join("r", &member, node(), given_up).await.expect("the backend answers");
    }
    assert!(matches!(join(&store, &later).await, JoinOutcome::Replaced(_)));
    for undone in [member(1), member(2)] {
        store.undo_join("r", &undone, node(), given_up).await.expect("the backend answers");
    }
    assert_eq!(listed(&store).await, [later]);
}

fn held(number: u64, incarnation: Incarnation) -> HeldMember {
    HeldMember { room: "r".into(), member: member(number), incarnation }
}

fn relisting() -> Relisting {
    Relisting { of: node(), number: next(), renamed_ms: 0, creates_rooms: true }
}

async fn relist(store: &SharedRooms, how: &Relisting, members: &[HeldMember]) -> Vec<RelistOutcome> {
    store.relist(how, members).await.expect("the backend answers")
}

async fn stored(store: &SharedRooms, of: Generation) -> Vec<StoredMember> {
    let (mut all, mut start) = (Vec::new(), 0);
    loop {
        let (some, next) = store.stored(of, start).await.expect("the backend answers");
        all.extend(some);
        start = next;
        if start == 0 {
            all.sort_unstable_by_key(|stored| stored.joined_at);
            all.dedup();
            return all;
        }
    }
}

/// Which says that nothing was lost.
pub async fn a_member_that_is_listed_as_its_node_holds_it_is_kept(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(incarnation) = join(&store, &member(1)).await else { panic!("the room was empty") };
    let listing = [held(1, incarnation), held(2, incarnation)];
    let expected = [RelistOutcome::Kept(incarnation), RelistOutcome::Listed(incarnation)];
    assert_eq!(relist(&store, &relisting(), &listing).await, expected);
    assert_eq!(relist(&store, &relisting(), &listing).await, [RelistOutcome::Kept(incarnation); 2]);
    assert_eq!(listed(&store).await, [member(1), member(2)]);
}

/// The room has the incarnation that its members hold, so that several nodes that list theirs agree.
pub async fn a_member_that_is_missing_is_listed_with_its_room_and_its_time(store: SharedRooms) {
    let how = Relisting { creates_rooms: false, ..relisting() };
    assert_eq!(relist(&store, &how, &[held(1, Incarnation(7))]).await, [RelistOutcome::Destroyed]);
    assert!(!store.exists("r").await.expect("the backend answers"));
    let outcomes = relist(&store, &relisting(), &[held(1, Incarnation(7))]).await;
    assert_eq!(outcomes, [RelistOutcome::Listed(Incarnation(7))]);
    assert_eq!(listed(&store).await, [member(1)]);
    assert_eq!(join(&store, &member(2)).await, JoinOutcome::New(Incarnation(7)));
    assert_eq!(leave(&store, "r", &member(1), Incarnation(1)).await, LeaveOutcome::Removed);
}

/// Nor are they listed in a new room of that name.
pub async fn a_room_that_was_closed_is_not_created_again_for_its_members(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(first) = join(&store, &member(1)).await else { panic!("the room was empty") };
    store.close("r").await.expect("the backend answers");
    let outcomes = relist(&store, &relisting(), &[held(1, first)]).await;
    assert_eq!(outcomes, [RelistOutcome::Closing], "its last message is not published yet");
    store.forget("r", first).await.expect("the backend answers");
    assert_eq!(relist(&store, &relisting(), &[held(1, first)]).await, [RelistOutcome::Destroyed]);
    assert!(!store.exists("r").await.expect("the backend answers"));
    create(&store, "r").await;
    assert_eq!(relist(&store, &relisting(), &[held(1, first)]).await, [RelistOutcome::Destroyed]);
    assert_eq!(listed(&store).await, []);
}

/// Such as of a room that another node created first on an empty backend.
pub async fn an_incarnation_without_evidence_of_an_end_is_taken_over(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(now) = join(&store, &member(1)).await else { panic!("the room was empty") };
    let listing = [held(2, Incarnation(now.0 - 1)), held(3, Incarnation(now.0 + 1))];
    assert_eq!(relist(&store, &relisting(), &listing).await, [RelistOutcome::Listed(now); 2]);
    assert_eq!(listed(&store).await, [member(1), member(2), member(3)]);
}

/// Others may have received its leave. The answer is the same if the first one was lost.
pub async fn a_member_that_a_reaper_removed_joins_anew(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(now) = join(&store, &member(1)).await else { panic!("the room was empty") };
    for _ in 0..2 {
        let how = Relisting { renamed_ms: 5000, ..relisting() };
        let outcomes = relist(&store, &how, &[held(1, now), held(2, now)]).await;
        assert_eq!(outcomes, [RelistOutcome::Kept(now), RelistOutcome::Rejoined(now)]);
    }
    assert_eq!(listed(&store).await, [member(1), Member { joined_at: 5000, ..member(2) }]);
}

/// The connection may have left since.
pub async fn a_listing_that_arrives_after_a_later_pass_is_refused(store: SharedRooms) {
    create(&store, "r").await;
    let given_up = relisting();
    store.remove_stored(node(), given_up.number, &[]).await.expect("the backend answers");
    store.remove_stored(node(), 0, &[]).await.expect("the backend answers");
    assert!(store.relist(&given_up, &[held(1, Incarnation(1))]).await.is_err());
    assert_eq!(listed(&store).await, []);
    assert_eq!(relist(&store, &relisting(), &[held(1, Incarnation(1))]).await.len(), 1);
    assert_eq!(listed(&store).await, [member(1)]);
}

/// A later membership of the same connection stays.
pub async fn stored_members_are_removed_only_as_they_were_read(store: SharedRooms) {
    create(&store, "r").await;
    let JoinOutcome::New(now) = join(&store, &member(1)).await else { panic!("the room was empty") };
    for number in 2..=3 {
        join(&store, &member(number)).await;
    }
    let read = stored(&store, node()).await;
    let expected =
        |number: u64| StoredMember { room: "r".to_owned(), id: member(number).id, joined_at: member(number).joined_at };
    assert_eq!(read, (1..=3).map(expected).collect::<Vec<_>>());
    assert_eq!(stored(&store, other_node()).await, []);
    let later = Member { joined_at: 2000, ..member(1) };
    assert_eq!(join(&store, &later).await, JoinOutcome::Replaced(now));
    let removed = store.remove_stored(node(), 0, &read[..2]).await.expect("the backend answers");
    assert_eq!(removed, 1, "the other was not as it was read");
    assert_eq!(listed(&store).await, [later, member(3)]);
    store.close("r").await.expect("the backend answers");
    store.remove_stored(node(), 0, &read[..1]).await.expect("the backend answers");
}

/// Even if many connections join at the same time.
pub async fn no_concurrent_join_is_lost(store: SharedRooms) {
    create(&store, "r").await;
    let mut joining = JoinSet::new();
    for number in 0..100 {
        let store = store.clone();
        joining
            .spawn(async move { store.join("r", &member(number), node(), next()).await.expect("the backend answers") });
    }
    assert!(joining.join_all().await.into_iter().all(|joined| matches!(joined, JoinOutcome::New(_))));
    assert_eq!(store.members("r", 1).await.expect("the backend answers").expect("the room exists").count, 100);
}
