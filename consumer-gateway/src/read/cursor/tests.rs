use proptest::prelude::*;

use super::*;

fn ns(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn mark() -> TopicMark {
    TopicMark::new(&TopicName::parse("logs.payments").unwrap(), Some([7; 16]))
}

fn sealed(keys: &Keys, offsets: &[i64]) -> String {
    keys.sealer(&ns("payments"), mark()).seal(&Positions::from_offsets(offsets))
}

#[test]
fn opens_what_it_sealed_and_stays_short() {
    let keys = Keys::ephemeral();
    let text = sealed(&keys, &[123_456_789]);
    assert!(text.len() <= 80, "{} characters", text.len());
    let opened = keys.open(&ns("payments"), &text).unwrap();
    assert_eq!(opened, Opened { topic: mark(), positions: Positions::from_offsets(&[123_456_789]) });
}

#[test]
fn two_cursors_of_one_place_differ() {
    let keys = Keys::ephemeral();
    let mut sealer = keys.sealer(&ns("payments"), mark());
    let positions = Positions::from_offsets(&[1]);
    assert_ne!(sealer.seal(&positions), sealer.seal(&positions));
}

#[test]
fn refuses_what_it_did_not_make_for_this_namespace() {
    let keys = Keys::ephemeral();
    let text = sealed(&keys, &[1, 2, 3]);
    let other_keys = Keys::ephemeral();
    assert_eq!(keys.open(&ns("payments-b"), &text), Err(CursorError::NotOurs));
    assert_eq!(other_keys.open(&ns("payments"), &text), Err(CursorError::NotOurs));
    for garbled in [
        "",
        "A",
        "!!",
        "AAAA",
        &text[1..],
        &text[..text.len() - 1],
        &format!("{text}A"),
        &format!("{text}="),
        &format!(" {text}"),
    ] {
        assert_eq!(keys.open(&ns("payments"), garbled), Err(CursorError::NotOurs), "{garbled:?}");
    }
    assert_eq!(keys.open(&ns("payments"), &"A".repeat(CURSOR_TEXT_BYTES_MAX + 1)), Err(CursorError::TooLong));
}

#[test]
fn the_longest_cursor_that_is_made_is_opened() {
    let keys = Keys::ephemeral();
    let offsets = vec![i64::MAX; PARTITIONS_MAX];
    let text = sealed(&keys, &offsets);
    assert!(text.len() > 16 * 1024 && text.len() <= LONGEST, "{} characters", text.len());
    assert_eq!(keys.open(&ns("payments"), &text).unwrap().positions, Positions::from_offsets(&offsets));
}

#[test]
fn refuses_every_flipped_bit() {
    let keys = Keys::ephemeral();
    let bytes = URL_SAFE_NO_PAD.decode(sealed(&keys, &[77])).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keys.open(&ns("payments"), &URL_SAFE_NO_PAD.encode(bytes)), Err(CursorError::NotOurs), "bit {bit}");
    }
}

#[test]
fn the_first_key_seals_and_all_open() {
    let (old, new) = ([1; 32], [2; 32]);
    let before = Keys::new(vec![old]).unwrap();
    let rotated = Keys::new(vec![new, old]).unwrap();
    assert!(rotated.open(&ns("payments"), &sealed(&before, &[5])).is_ok());
    assert!(Keys::new(vec![new]).unwrap().open(&ns("payments"), &sealed(&rotated, &[5])).is_ok());
    assert!(Keys::new(vec![]).is_err());
}

#[test]
fn a_topic_is_told_from_another_and_from_itself_made_again() {
    let name = TopicName::parse("logs.a").unwrap();
    let other = TopicMark::new(&TopicName::parse("logs.b").unwrap(), None);
    let (unknown, one, two) =
        (TopicMark::new(&name, None), TopicMark::new(&name, Some([1; 16])), TopicMark::new(&name, Some([2; 16])));
    for (a, b, expected) in [(unknown, one, true), (one, one, true), (one, two, false), (unknown, other, false)] {
        assert_eq!(a.may_be(&b), expected);
        assert_eq!(b.may_be(&a), expected);
    }
}

proptest! {
    #[test]
    fn any_positions_survive(offsets in proptest::collection::vec(proptest::option::of(0..i64::MAX), 0..40)) {
        let keys = Keys::ephemeral();
        let mut positions = Positions::default();
        for (partition, offset) in offsets.iter().enumerate() {
            if let Some(offset) = offset { positions.set(i32::try_from(partition).unwrap(), *offset); }
        }
        let text = keys.sealer(&ns("payments"), mark()).seal(&positions);
        prop_assert_eq!(keys.open(&ns("payments"), &text).unwrap().positions, positions);
    }

    #[test]
    fn any_text_is_answered_without_a_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let keys = Keys::ephemeral();
        prop_assert!(keys.open(&ns("payments"), &text).is_err());
        prop_assert!(keys.open(&ns("payments"), &URL_SAFE_NO_PAD.encode(&bytes)).is_err());
        let _ = decode(&bytes);
    }
}
