//! Files on disks that are simulated.

use std::sync::atomic::Ordering;

use super::super::database::open_held;
use super::super::held::Held;
use super::super::{CALLS_OF_CLIENT, CLIENTS};
use super::simulated::{Lasting, PAGE, Powered, Small, Unsynced, new_file, of_size, small};
use super::*;
use crate::store::{Entry, Time};

/// The file as a loss of power left it.
fn after(left: Vec<u8>) -> Result<File<Entry>, FileError> {
    File::on(Arc::new(Powered::new(left)))
}

#[tokio::test]
async fn what_was_committed_is_there_whatever_a_loss_of_power_leaves_of_the_rest() {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = File::<Entry>::on(Arc::new(powered.clone())).expect("it is whole");
    let mut random = fastrand::Rng::with_seed(1);
    let mut old = None;
    let mut grown = 0;
    for seconds in 1..=12 {
        let length = powered.with(|contents| {
            contents.before_syncs.clear();
            contents.now.len()
        });
        // The file grows with some of these, and what was replaced is used again.
        let new = of_size(120_000 + 1000 * seconds as usize, seconds);
        let kept = format!("key-{seconds}");
        let entries = [("a", &new), ("b", &new), (&*kept, &new)];
        let call = CallKey::new(7, seconds as u64);
        let committed = file.commit(&entries, &[(call, kept.as_bytes())]).await;
        assert_eq!(committed.expect("the disk works"), Commit::Done);
        let (moments, end, has_grown) = powered.with(|contents| {
            let has_grown = contents.now.len() > length;
            let moments = std::mem::take(&mut contents.before_syncs);
            (moments, contents.lasting.clone(), has_grown)
        });
        grown += usize::from(has_grown);
        if !has_grown && seconds % 4 != 0 {
            // As any other.
            old = Some(new);
            continue;
        }
        let moments = moments.into_iter().map(|moment| (moment, false));
        for (moment, acknowledged) in moments.chain([(end, true)]) {
            for (case, left) in lefts(&moment, &mut random).into_iter().enumerate() {
                let case = format!("commit {seconds}, case {case}");
                let left = after(left);
                let mut left = left.unwrap_or_else(|error| panic!("{case}: {error}"));
                let a = left.read("a").await.expect("it is whole");
                let b = left.read("b").await.expect("it is whole");
                assert!(a == b, "{case}: half of it");
                let is_new = a.as_ref() == Some(&new);
                assert!(is_new || !acknowledged && a == old, "{case}");
                let answered = match is_new {
                    true => Answered::Yes(kept.clone().into_bytes()),
                    false => Answered::No,
                };
                let found = left
                    .answered(KeyedCall::resent(call))
                    .await
                    .expect("it is whole");
                assert_eq!(found, answered, "{case}: half of it");
                for before in 1..seconds {
                    let found = left.read(&format!("key-{before}")).await;
                    let found = found.expect("it is whole").map(|entry| entry.time);
                    assert_eq!(found, Some(Time::from_parts(before, 0)), "{case}");
                }
            }
        }
        old = Some(new);
    }
    assert!(grown > 0, "no commit has made the file grow");
}

/// Nothing of what was not synced, all of it, the header or the length with or without the
/// rest, and any part.
fn lefts(moment: &Lasting, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let is_header = |part: &Unsynced| {
        matches!(
            part,
            Unsynced::Sector {
                offset: 0..4096,
                ..
            }
        )
    };
    let is_length = |part: &Unsynced| matches!(part, Unsynced::Length(_));
    let mut lefts = vec![
        moment.left(|_| false),
        moment.left(|_| true),
        moment.left(is_header),
        moment.left(is_length),
        moment.left(|part| !is_header(part)),
        moment.left(|part| !is_length(part)),
    ];
    lefts.extend((1..=3).map(|quarters| moment.left(|_| random.u8(0..4) < quarters)));
    lefts
}

#[tokio::test]
async fn a_full_disk_takes_what_fits_and_keeps_what_it_had() {
    let (small, _directory) = small(100, 0);
    let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
    let mut kept = of_size(10, 0);
    let large = of_size(900_000, 100);
    let mut refused = 0;
    for seconds in 1..=8 {
        if seconds % 2 == 0 {
            let both = [("k", &large), ("l", &large)];
            let committed = file.commit(&both, &[]).await.expect("it goes on");
            assert_eq!(committed, Commit::NoRoom, "{seconds}");
            refused += 1;
        } else {
            kept = of_size(100 * seconds as usize, seconds);
            let committed = file.commit(&[("k", &kept)], &[]).await.expect("it goes on");
            assert_eq!(committed, Commit::Done, "{seconds}");
        }
        assert!(file.read("k").await.expect("it goes on").as_ref() == Some(&kept));
        assert!(file.read("l").await.expect("it goes on").is_none());
        // The same after a loss of power.
        let synced = small.file.with(|contents| contents.lasting.left(|_| false));
        let mut left = after(synced).expect("it is whole");
        assert!(left.read("k").await.expect("it is whole").as_ref() == Some(&kept));
        assert!(left.read("l").await.expect("it is whole").is_none());
    }
    assert_eq!(refused, 4);
    // When there is room again, it is used.
    small.pages.store(10_000, Ordering::Relaxed);
    let committed = file
        .commit(&[("l", &large)], &[])
        .await
        .expect("it goes on");
    assert_eq!(committed, Commit::Done);
    assert!(file.read("l").await.expect("it goes on") == Some(large));
    assert!(file.read("k").await.expect("it goes on") == Some(kept));
}

#[tokio::test]
async fn a_disk_that_is_filled_to_its_last_page_can_still_be_read() {
    let (small, _directory) = small(15, 0);
    let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
    let mut kept = Vec::new();
    let mut refused = 0;
    for number in 0..60 {
        let key = format!("key-{number}");
        let entry = of_size(1500, number);
        match file
            .commit(&[(&key, &entry)], &[])
            .await
            .expect("it goes on")
        {
            Commit::Done => kept.push((key, entry)),
            Commit::NoRoom => refused += 1,
            Commit::NotSynced(error) => panic!("{error}"),
        }
    }
    assert!(!kept.is_empty() && refused > 0, "{refused} refused");
    for (key, entry) in kept {
        assert!(file.read(&key).await.expect("it goes on") == Some(entry));
    }
}

#[tokio::test]
async fn a_sync_without_room_is_no_lack_of_room() {
    let (small, _directory) = small(100, 0);
    let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
    small.late.store(true, Ordering::Relaxed);
    let large = of_size(900_000, 1);
    let failed = file.commit(&[("k", &large)], &[]).await;
    // Nor can it be opened again: that needs a sync.
    let error = failed.expect_err("nobody knows what is on the disk");
    assert!(error.to_string().contains("a sync has failed"), "{error}");
}

#[tokio::test]
async fn a_full_disk_whose_room_others_take_is_read_and_written_when_there_is_room_again() {
    for reserve in [0, 30] {
        let (small, _directory) = small(100, reserve);
        let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
        assert!(!file.is_full());
        let kept = of_size(1000, 1);
        let committed = file.commit(&[("k", &kept)], &[]).await.expect("it goes on");
        assert_eq!(committed, Commit::Done);
        small.greedy.store(true, Ordering::Relaxed);
        let large = of_size(900_000, 2);
        for round in 0..3 {
            let committed = file
                .commit(&[("k", &large)], &[])
                .await
                .expect("it goes on");
            assert_eq!(committed, Commit::NoRoom, "{round}");
            assert!(file.read("k").await.expect("it goes on").as_ref() == Some(&kept));
            // The reserve is for one time. Without it the file can be read alone.
            let is_released = file.opened().held.is_released();
            assert_eq!(is_released, reserve > 0 && round == 0, "{round}");
            assert!(file.is_full());
            if reserve > 0 {
                assert_eq!(small.reserved.load(Ordering::Relaxed), 0);
            }
        }
        // A process that is started now serves what is there.
        let synced = small.file.with(|contents| contents.lasting.left(|_| false));
        let mut left = after(synced).expect("it is whole");
        assert!(left.read("k").await.expect("it is whole").as_ref() == Some(&kept));
        // When there is room again, it is used, and the reserve is there again.
        small.greedy.store(false, Ordering::Relaxed);
        small.pages.store(10_000, Ordering::Relaxed);
        let committed = file
            .commit(&[("k", &large)], &[])
            .await
            .expect("it goes on");
        assert_eq!(committed, Commit::Done);
        assert!(file.read("k").await.expect("it goes on") == Some(large));
        assert!(!file.is_full());
        assert_eq!(small.reserved.load(Ordering::Relaxed), reserve);
    }
}

#[tokio::test]
async fn a_loss_of_power_at_any_point_of_a_write_takes_nothing_that_was_acknowledged() {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = File::<Entry>::on(Arc::new(powered.clone())).expect("it is whole");
    let mut old = None;
    for seconds in 1..=3 {
        let new = of_size(1500, seconds);
        powered.with(|contents| contents.before_syncs.clear());
        let both = [("a", &new), ("b", &new)];
        let committed = file.commit(&both, &[]).await.expect("the disk works");
        assert_eq!(committed, Commit::Done);
        let moments = powered.with(|contents| std::mem::take(&mut contents.before_syncs));
        assert_eq!(moments.len(), 2, "two phases");
        let mut points = 0;
        for (phase, moment) in moments.iter().enumerate() {
            for point in 0..=moment.unsynced.len() {
                points += 1;
                let mut before = point;
                let left = moment.left(|_| {
                    let survives = before > 0;
                    before = before.saturating_sub(1);
                    survives
                });
                let case = format!("commit {seconds}, phase {phase}, point {point}");
                let mut left = after(left).unwrap_or_else(|error| panic!("{case}: {error}"));
                let a = left.read("a").await.expect("it is whole");
                assert!(a == left.read("b").await.expect("it is whole"), "{case}");
                assert!(a == old || a.as_ref() == Some(&new), "{case}");
            }
        }
        assert!(points > 20, "{points}");
        let synced = powered.with(|contents| contents.lasting.left(|_| false));
        let mut left = after(synced).expect("it is whole");
        assert!(left.read("a").await.expect("it is whole").as_ref() == Some(&new));
        old = Some(new);
    }
}

/// What is said where a failed sync is taken for done and nothing is lost.
const BY_CHANCE: &str = "it is taken for done, and is on the disk by chance";

/// Writes to a disk of which one of the syncs of a write fails. What is read then, and what is
/// written afterwards, is what a loss of power leaves; otherwise it says what is not.
async fn write_past_a_failed_sync(
    open: impl Fn(Arc<Powered>) -> Result<File<Entry>, FileError>,
    fails: usize,
    seed: u64,
) -> Result<(), String> {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = open(Arc::new(powered.clone())).expect("it is whole");
    let [old, new, next] = [1, 2, 3].map(|seconds| of_size(40_000, seconds));
    for key in ["k", "l"] {
        let committed = file
            .commit(&[(key, &old)], &[])
            .await
            .expect("the disk works");
        assert_eq!(committed, Commit::Done);
    }
    powered.with(|contents| {
        contents.failing = vec![fails];
        contents.random = fastrand::Rng::with_seed(seed);
    });
    let both = [("k", &new), ("l", &new)];
    let committed = file
        .commit(&both, &[])
        .await
        .map_err(|error| error.to_string())?;
    let left = || after(powered.with(|contents| contents.lasting.left(|_| false)));
    if committed == Commit::Done {
        let mut left = left().map_err(|error| error.to_string())?;
        let found = left.read("k").await.map_err(|error| error.to_string())?;
        return Err(match found.as_ref() == Some(&new) {
            true => BY_CHANCE.to_owned(),
            false => "what was acknowledged is not on the disk".to_owned(),
        });
    }
    if !matches!(&committed, Commit::NotSynced(text) if text.contains("a sync has failed")) {
        return Err(format!("it is something else: {committed:?}"));
    }
    let mut shown = None;
    for key in ["k", "l"] {
        let found = file.read(key).await.map_err(|error| error.to_string())?;
        let mut left = left().map_err(|error| error.to_string())?;
        if found != left.read(key).await.map_err(|error| error.to_string())? {
            return Err("what was read is not on the disk".to_owned());
        }
        if !(found.as_ref() == Some(&old) || found.as_ref() == Some(&new)) {
            return Err("something else is on the disk".to_owned());
        }
        if shown
            .replace(found.clone())
            .is_some_and(|shown| shown != found)
        {
            return Err("half of it is on the disk".to_owned());
        }
    }
    let committed = file
        .commit(&[("k", &next)], &[])
        .await
        .map_err(|error| error.to_string())?;
    if committed != Commit::Done {
        return Err(format!("it does not go on: {committed:?}"));
    }
    let mut left = left().map_err(|error| error.to_string())?;
    let [k, l] = ["k", "l"].map(|key| key.to_owned());
    let k = left.read(&k).await.map_err(|error| error.to_string())?;
    let l = left.read(&l).await.map_err(|error| error.to_string())?;
    match k == Some(next) && Some(l) == shown {
        true => Ok(()),
        false => Err("what was written later is not on the disk".to_owned()),
    }
}

#[tokio::test]
async fn a_sync_that_fails_is_never_taken_for_done() {
    for fails in [0, 1] {
        for seed in 0..10 {
            let written = write_past_a_failed_sync(|disk| File::on(disk), fails, seed).await;
            written.unwrap_or_else(|error| panic!("sync {fails}, seed {seed}: {error}"));
        }
    }
}

#[cfg(feature = "planted-bugs")]
#[tokio::test]
async fn whoever_syncs_again_after_a_failed_sync_is_found_out() {
    let open = |disk: Arc<Powered>| File::on_with_bug(disk, Bug::SyncAgain);
    for fails in [0, 1] {
        let mut found = 0;
        for seed in 0..10 {
            let written = write_past_a_failed_sync(open, fails, seed).await;
            found += usize::from(written.is_err_and(|error| error != BY_CHANCE));
        }
        assert!(found > 2, "sync {fails}: {found} of 10");
    }
}

#[tokio::test]
async fn a_disk_whose_syncs_go_on_failing_is_given_up() {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = File::<Entry>::on(Arc::new(powered.clone())).expect("it is whole");
    let entry = of_size(10, 1);
    for time in 1..=FAILED_SYNCS {
        powered.with(|contents| contents.failing = vec![0]);
        let committed = file.commit(&[("k", &entry)], &[]).await;
        assert_eq!(committed.is_err(), time == FAILED_SYNCS, "{committed:?}");
    }
}

#[tokio::test]
async fn where_memory_cannot_be_told_from_the_disk_one_failed_sync_is_the_end() {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = File::<Entry>::on(Arc::new(powered.clone())).expect("it is whole");
    powered.with(|contents| (contents.failing, contents.forgets) = (vec![0], false));
    let entry = of_size(10, 1);
    let error = file
        .commit(&[("k", &entry)], &[])
        .await
        .expect_err("the end");
    assert!(error.to_string().contains("a sync has failed"), "{error}");
}

const RECORDS: i64 = 150;

/// A file with some records, some of which were replaced, and what is in it.
async fn filled() -> Vec<u8> {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = File::<Entry>::on(Arc::new(powered.clone())).expect("it is whole");
    for seconds in 0..RECORDS {
        for length in [100, 600] {
            let entry = of_size(length + seconds as usize, seconds);
            let key = format!("key-{seconds}");
            let committed = file.commit(&[(&key, &entry)], &[]).await;
            assert_eq!(committed.expect("the disk works"), Commit::Done);
        }
    }
    drop(file);
    powered.with(|contents| contents.now.clone())
}

/// Whether all records are there. A record that is there otherwise than it was written is the end.
async fn are_all_there(file: &mut File<Entry>, case: &str) -> bool {
    let mut all = true;
    for seconds in 0..RECORDS {
        match file.read(&format!("key-{seconds}")).await {
            Ok(found) => {
                let expected = of_size(600 + seconds as usize, seconds);
                assert!(found == Some(expected), "{case}: record {seconds}");
            }
            Err(error) => {
                assert!(error.is_damage() || !all, "{case}: {error}");
                all = false;
            }
        }
    }
    all
}

/// Places in a file of which a bit is flipped: most of them where something is.
fn places(bytes: &[u8], count: usize) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(7);
    let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let place = |number: usize| match number % 4 {
        0 => random.usize(0..bytes.len()),
        _ => used[random.usize(0..used.len())],
    };
    (0..count).map(place).collect()
}

#[tokio::test]
async fn a_file_that_is_damaged_is_refused_by_the_page_or_all_of_it_is_there() {
    let whole = filled().await;
    let (mut refused, mut named) = (0, 0);
    for place in places(&whole, 250) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        let powered = Powered::new(bytes.clone());
        let opened = File::<Entry>::on(Arc::new(powered.clone()));
        match opened {
            Ok(mut file) => {
                assert!(are_all_there(&mut file, &format!("place {place}")).await);
            }
            Err(error) => {
                assert!(error.is_damage(), "place {place}: {error}");
                assert!(
                    powered.with(|contents| contents.now == bytes),
                    "place {place}"
                );
                refused += 1;
                let (offset, len) = error.last_read().expect("a page is named");
                named += usize::from((offset as usize..offset as usize + len).contains(&place));
            }
        }
    }
    assert!(refused > 80, "{refused}");
    assert_eq!(named, refused);
}

/// A file that keeps nothing of what it has read.
fn without_cache(powered: Powered) -> File<Entry> {
    let backend: Arc<dyn Backend> = Arc::new(powered);
    let held = Held::new(Arc::clone(&backend), Planted::default());
    let open = open_held(held, 0, Planted::default()).expect("it is whole");
    let mut file = File {
        open: Some(open),
        backend,
        named: None,
        failed_syncs: 0,
        has_reserve: true,
        had_no_room: false,
        planted: Planted::default(),
    };
    assert!(file.release().expect("the disk works"));
    file
}

#[tokio::test]
async fn damage_at_any_of_1000_places_under_a_file_that_is_open_is_found_with_its_page() {
    let whole = filled().await;
    let powered = Powered::new(whole.clone());
    let mut file = without_cache(powered.clone());
    let held = file.opened().held.clone();
    let look_at_all = || -> io::Result<()> {
        let mut next = Some(0);
        while let Some(from) = next {
            next = held.verify(from, VERIFIED)?;
        }
        Ok(())
    };
    look_at_all().expect("it is whole");
    let mut found = 0;
    for place in places(&whole, 1000) {
        let flip = || powered.with(|contents| contents.now[place] ^= 1 << (place % 8));
        let page = place as u64 / PAGE * PAGE;
        flip();
        match look_at_all() {
            Err(error) => {
                let expected = format!("at offset {page} are not as they were written");
                assert!(error.to_string().contains(&expected), "{place}: {error}");
                found += 1;
            }
            // What redb has not read when it looked at all there is, is in use by nobody.
            Ok(()) => assert!(!held.knows(page / PAGE), "{place}"),
        }
        flip();
    }
    look_at_all().expect("it is whole");
    assert!(found > 400, "{found}");
}

#[tokio::test]
async fn no_read_gives_another_value_whatever_becomes_of_the_disk_under_it() {
    let whole = filled().await;
    let mut found = 0;
    for place in places(&whole, 100) {
        let case = format!("place {place}");
        let powered = Powered::new(whole.clone());
        let mut file = without_cache(powered.clone());
        powered.with(|contents| contents.now[place] ^= 1 << (place % 8));
        let is_found = !are_all_there(&mut file, &case).await;
        found += usize::from(is_found);
        let mut verified = file.verify(0).await;
        while let Ok(Some(from)) = verified {
            verified = file.verify(from).await;
        }
        match verified {
            Err(error) => assert!(error.is_damage() || is_found, "{case}: {error}"),
            // Where nothing is, it does no harm.
            Ok(_) => assert!(are_all_there(&mut file, &case).await, "{case}"),
        }
    }
    assert!(found > 5, "{found}");
}

#[tokio::test]
async fn of_each_client_the_newest_answers_are_kept_and_of_the_clients_that_were_answered_last() {
    let (now, _directory) = new_file();
    let mut file = File::<Entry>::on(Arc::new(Powered::new(now))).expect("it is whole");
    let key = |client, call| CallKey::new(client, call);
    let mut answer = async |client: u128, calls: std::ops::Range<u64>| {
        let calls = calls.map(|call| (key(client, call), b"a".as_slice()));
        let committed = file.commit(&[], &Vec::from_iter(calls)).await;
        assert_eq!(committed.expect("the disk works"), Commit::Done);
    };
    let of_client = CALLS_OF_CLIENT as u64;
    answer(1, 0..1).await;
    answer(2, 5..6).await;
    answer(1, 1..of_client + 2).await;
    let mut find = async |client, call| {
        let found = file.answered(KeyedCall::resent(key(client, call))).await;
        found.expect("the disk works")
    };
    assert_eq!(find(1, 0).await, Answered::Forgotten);
    assert_eq!(find(1, 1).await, Answered::Forgotten);
    assert_eq!(find(1, 2).await, Answered::Yes(b"a".to_vec()));
    assert_eq!(find(1, of_client + 1).await, Answered::Yes(b"a".to_vec()));
    assert_eq!(find(1, of_client + 2).await, Answered::No);
    assert_eq!(find(2, 4).await, Answered::No);
    let all = file.opened().count_answers().expect("it is whole");
    assert_eq!(all, of_client + 1);

    // One client too many: the second was answered the longest time ago.
    let others: Vec<_> = (3..=CLIENTS as u128 + 1)
        .map(|client| (key(client, 0), b"b".as_slice()))
        .collect();
    let committed = file.commit(&[], &others).await.expect("the disk works");
    assert_eq!(committed, Commit::Done);
    let mut find = async |client, call| {
        let found = file.answered(KeyedCall::resent(key(client, call))).await;
        found.expect("the disk works")
    };
    assert_eq!(find(1, 2).await, Answered::Yes(b"a".to_vec()));
    assert_eq!(find(1, of_client + 2).await, Answered::No);
    // Nor is what a client sends again taken for new that never was here.
    assert_eq!(find(2, 5).await, Answered::Forgotten);
    assert_eq!(find(CLIENTS as u128 + 9, 5).await, Answered::Forgotten);
    assert_eq!(find(3, 0).await, Answered::Yes(b"b".to_vec()));
    let new = file.answered(KeyedCall::first(key(2, 6))).await;
    assert_eq!(new.expect("the disk works"), Answered::No);

    let all = file.opened().count_answers().expect("it is whole");
    assert_eq!(all, of_client + CLIENTS as u64 - 1);

    // What it has come back with says nothing of what it had before.
    let committed = file.commit(&[], &[(key(2, 7), b"c")]).await;
    assert_eq!(committed.expect("the disk works"), Commit::Done);
    for (call, expected) in [
        (KeyedCall::resent(key(2, 5)), Answered::Forgotten),
        (KeyedCall::first(key(2, 6)), Answered::No),
        (KeyedCall::resent(key(2, 7)), Answered::Yes(b"c".to_vec())),
        (KeyedCall::resent(key(4, 1)), Answered::No),
    ] {
        let found = file.answered(call).await;
        assert_eq!(found.expect("the disk works"), expected, "{call:?}");
    }
}
