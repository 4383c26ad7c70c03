//! What becomes of a seat.

use std::io;
use std::sync::{Arc, Mutex};

use gorums::Configuration;
use gorums::runtime::SystemClock;
use tokio::sync::mpsc::unbounded_channel;

use super::proto::Standing;
use super::seat::Step;
use super::state::MOST_REPLICAS;
use super::{Found, Seat, Slate, catch_up};
use crate::disk::Disk;
use crate::store::{Entry, Store};

/// A slate in memory, whose clones are the same.
#[derive(Debug, Clone, Default)]
struct Board(Arc<Mutex<(Vec<u8>, bool)>>);

impl Board {
    fn whole() -> Self {
        let mut board = Self::default();
        Seat::declare_whole(&mut board).expect("it can be written");
        board
    }

    fn breaks(&self, is_broken: bool) {
        self.0.lock().expect("no test panics with it").1 = is_broken;
    }
}

impl Slate for Board {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().expect("no test panics with it").0.clone())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut board = self.0.lock().expect("no test panics with it");
        if board.1 {
            return Err(io::Error::other("it is broken"));
        }
        board.0 = bytes.to_owned();
        Ok(())
    }
}

/// Replica 1 of five.
fn seat(board: &Board, has_data: bool) -> Seat {
    Seat::open(1, 5, board.clone(), has_data).expect("it can be read and written")
}

/// A seat that has lost its data, and that three others say they have theirs.
async fn in_a_new_life(board: &Board) -> Seat {
    let seat = seat(board, false);
    let others = [2, 3, 4].map(|id| Standing::new(id, 0, []));
    seat.begin_life(&others).await.expect("it can be written");
    seat
}

async fn all_of(seat: &Seat, sender: &Standing) -> Step {
    let step = seat.advance(sender, 7, Some("k".to_owned()), true);
    step.await.expect("it can be written")
}

#[test]
fn so_many_others_are_asked_that_every_majority_has_one_of_them() {
    for (replicas, needed) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4), (100, 50)] {
        let seat = Seat::open(1, replicas, Board::whole(), true).expect("it can be read");
        assert_eq!(seat.needed(), needed, "{replicas}");
        // Any majority with the replica, and any two replicas that ask.
        let majority = replicas / 2 + 1;
        if replicas > 1 {
            assert!((majority - 1) + needed > replicas - 1, "{replicas}");
            assert!(2 * needed > replicas - 1, "{replicas}");
        }
    }
}

#[test]
fn a_replica_has_its_data_where_its_slate_says_so_and_they_are_there() {
    for (board, has_data, is_whole) in [
        (Board::whole(), true, true),
        (Board::whole(), false, false),
        (Board::default(), true, false),
        (Board::default(), false, false),
    ] {
        assert_eq!(seat(&board, has_data).is_whole(), is_whole, "{board:?}");
        // It does not get them by another start.
        assert_eq!(seat(&board, true).is_whole(), is_whole, "{board:?}");
    }
}

#[test]
fn a_slate_that_is_not_as_it_was_written_is_taken_for_lost() {
    let board = Board::whole();
    let length = board.clone().read().expect("it can be read").len();
    for place in 0..length {
        let mut board = Board::whole();
        board.0.lock().expect("no test panics with it").0[place] ^= 4;
        let found = Seat::look(&mut board).expect("it can be read");
        assert_eq!(found, Found::Lost(Vec::new()), "{place}");
        assert!(!seat(&board, true).is_whole(), "{place}");
        let board = Board::whole();
        board
            .0
            .lock()
            .expect("no test panics with it")
            .0
            .truncate(place);
        assert!(!seat(&board, true).is_whole(), "{place}");
    }
}

#[tokio::test]
async fn a_life_comes_after_all_that_anybody_knows_of() {
    let seat = seat(&Board::default(), false);
    assert_eq!(seat.life(), None);
    let others = [
        Standing::new(2, 0, [(1, 3), (4, 1)]),
        Standing::new(3, 5, []),
        Standing::new(4, 2, [(1, 2)]),
    ];
    seat.begin_life(&others).await.expect("it can be written");
    assert_eq!(seat.life(), Some(4));
    assert_eq!(seat.standing(), Standing::new(1, 4, [(3, 5), (4, 2)]));
}

#[tokio::test]
async fn a_replica_has_its_data_again_when_enough_others_have_sent_all_of_theirs() {
    let board = Board::default();
    let seat = in_a_new_life(&board).await;
    let refusal = seat.admit().expect_err("it has nothing");
    assert_eq!(refusal.code(), gorums::Code::Unavailable);
    let (two, three, four) = (
        Standing::new(2, 0, []),
        Standing::new(3, 0, []),
        Standing::new(4, 0, []),
    );
    assert_eq!(all_of(&seat, &two).await, Step::Done);
    assert_eq!(all_of(&seat, &three).await, Step::Done);
    let more = seat.advance(&four, 9, Some("a".to_owned()), false).await;
    assert_eq!(more.expect("it can be written"), Step::On);
    assert!(!seat.is_whole());
    assert_eq!(
        seat.progress().to_string(),
        "replica 1 has lost its data, and answers when it has caught up from 3 others that have theirs; so far all 7 \
         records of 2, all 7 records of 3, 9 records of 4"
    );
    assert_eq!(all_of(&seat, &four).await, Step::Done);
    assert!(seat.is_whole());
    seat.admit().expect("it has its data");
    assert_eq!(seat.standing(), Standing::new(1, 1, []));
}

#[tokio::test]
async fn an_attempt_that_was_interrupted_goes_on_where_it_was() {
    let board = Board::default();
    let before = in_a_new_life(&board).await;
    all_of(&before, &Standing::new(2, 0, [])).await;
    let three = Standing::new(3, 2, []);
    let page = before.advance(&three, 9, Some("m".to_owned()), false);
    page.await.expect("it can be written");
    let after = seat(&board, true);
    assert_eq!(after.life(), Some(1));
    assert!(after.sender(2).is_done);
    assert_eq!(
        (after.sender(3).upto.as_deref(), after.sender(3).losses),
        (Some("m"), 2)
    );
    // What came is lost as well, so it begins anew.
    let again = seat(&board, false);
    assert_eq!(again.life(), None);
    assert!(!again.sender(2).is_done);
}

#[tokio::test]
async fn what_came_from_a_replica_that_has_lost_its_data_since_does_not_count() {
    let seat = in_a_new_life(&Board::default()).await;
    all_of(&seat, &Standing::new(2, 0, [])).await;
    all_of(&seat, &Standing::new(3, 0, [])).await;
    // The third one knows of it.
    all_of(&seat, &Standing::new(4, 0, [(2, 1)])).await;
    assert!(!seat.is_whole());
    assert!(!seat.sender(2).is_done);
    // What it sent before is nothing to go on from.
    let two = Standing::new(2, 1, []);
    let half = seat.advance(&two, 1, None, false).await;
    half.expect("it can be written");
    assert_eq!(seat.sender(2).upto, None);
    all_of(&seat, &two).await;
    assert!(seat.is_whole());
}

#[tokio::test]
async fn a_life_of_which_somebody_knows_a_newer_one_is_given_up() {
    let seat = in_a_new_life(&Board::default()).await;
    all_of(&seat, &Standing::new(2, 0, [(1, 1)])).await;
    assert_eq!(
        all_of(&seat, &Standing::new(3, 0, [(1, 4)])).await,
        Step::Again
    );
    assert_eq!(seat.life(), None);
    let others = [2, 3, 4].map(|id| Standing::new(id, 0, []));
    seat.begin_life(&others).await.expect("it can be written");
    assert_eq!(seat.life(), Some(5));
    assert!(!seat.sender(2).is_done);
}

#[tokio::test]
async fn a_replica_that_is_told_of_fewer_others_than_before_waits_and_says_so() {
    let board = Board::default();
    all_of(&in_a_new_life(&board).await, &Standing::new(2, 0, [])).await;
    // Nobody listens there, and nobody is asked: the second one has sent all that it has.
    let second = Configuration::builder().node(2, "127.0.0.1:1");
    let second = second.connect().expect("it is well formed");
    for others in [second.without(2), second] {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = Disk::<Entry>::open(directory.path(), 1).expect("it can be made");
        let seat = Seat::open(1, others.len() + 1, board.clone(), true);
        let seat = seat.expect("it can be read");
        let store = Arc::new(Store::on_disk(disk, Some(seat.clone())));
        let (tell, mut told) = unbounded_channel();
        let tell = move |text: String| drop(tell.send(text));
        let waits = async {
            let how_far = told.recv().await.expect("it goes on");
            assert!(how_far.ends_with("all 7 records of 2"), "{how_far}");
            told.recv().await.expect("it goes on")
        };
        let waits = tokio::select! {
            biased;
            () = catch_up(&store, &others, Arc::new(SystemClock), tell) => panic!("it has them"),
            waits = waits => waits,
        };
        let expected = "replica 1 waits: there are no others to catch up from";
        assert_eq!(waits, expected, "{others:?}");
        assert!(!seat.is_whole(), "{others:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_loss_is_known_for_good_and_only_grows() {
    let board = Board::whole();
    let me = seat(&board, true);
    assert_eq!(me.standing(), Standing::new(1, 0, []));
    let known = Standing::new(1, 0, [(3, 2)]);
    assert_eq!(me.note_loss(3, 2).await.expect("it can be written"), known);
    assert_eq!(me.note_loss(3, 2).await.expect("it knows that"), known);
    me.note_loss(3, 1).await.expect_err("that is over");
    me.note_loss(1, 1).await.expect_err("that is itself");
    assert_eq!(seat(&board, true).standing(), known);
    // Where its own data are lost, it is lost no more than that.
    assert_eq!(seat(&board, false).standing(), known);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_so() {
    let board = Board::whole();
    let seat = seat(&board, true);
    board.breaks(true);
    let error = seat.note_loss(3, 1).await.expect_err("it is broken");
    assert_eq!(error.code(), gorums::Code::Internal);
    assert_eq!(seat.standing(), Standing::new(1, 0, []));
    board.breaks(false);
    seat.note_loss(3, 1).await.expect("it works again");
}

#[tokio::test]
async fn the_number_of_replicas_that_are_known_is_bounded() {
    let seat = seat(&Board::whole(), true);
    for id in 0..MOST_REPLICAS as u32 {
        seat.note_loss(id + 2, 1).await.expect("there is room");
    }
    let error = seat.note_loss(u32::MAX, 1).await.expect_err("no room");
    assert_eq!(error.code(), gorums::Code::ResourceExhausted);
    seat.note_loss(2, 2).await.expect("it is known");
}

#[tokio::test]
async fn somebody_may_say_that_a_replica_has_its_data() {
    let mut board = Board::default();
    assert_eq!(
        Seat::look(&mut board).expect("it can be read"),
        Found::Nothing
    );
    Seat::declare_whole(&mut board).expect("it can be written");
    assert_eq!(
        Seat::look(&mut board).expect("it can be read"),
        Found::Whole
    );
    assert_eq!(seat(&board, true).standing(), Standing::new(1, 0, []));

    let mut board = Board::default();
    let lost = in_a_new_life(&board).await;
    all_of(&lost, &Standing::new(2, 0, [(4, 1)])).await;
    assert_eq!(
        Seat::look(&mut board).expect("it can be read"),
        Found::Lost(vec![2])
    );
    Seat::declare_whole(&mut board).expect("it can be written");
    assert_eq!(seat(&board, true).standing(), Standing::new(1, 1, [(4, 1)]));

    // Without the others it is another life all the same.
    let mut board = Board::whole();
    drop(seat(&board, false));
    Seat::declare_whole(&mut board).expect("it can be written");
    assert_eq!(seat(&board, true).standing(), Standing::new(1, 1, []));
}
