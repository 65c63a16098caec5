//! Cursors: where a reader stands, sealed. Input: positions in a topic. Output: a short text that only this gateway's keys open.
//!
//! A cursor is `version (1) | key id (1) | nonce (12) | ciphertext | tag (16)`, base64url without padding. The cipher is AES-256-GCM-SIV
//! (RFC 8452): every line carries a cursor, so random nonces would reach plain GCM's limit of 2^32 messages a key within a day; with SIV a
//! nonce that comes twice shows only that two cursors are equal. The namespace is authenticated, not carried: a cursor opens only for the
//! namespace it was made for. It grants nothing, and it holds no filter.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, rand,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fairlead_contract::{namespace::Namespace, topic::TopicName};

use super::position::Positions;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 2 + NONCE_LEN;
const PURPOSE: &[u8] = b"fairlead cursor\x01";
const ID_KNOWN: u8 = 1;

/// The longest cursor text that is looked at, in bytes. It fits into a query with room for the other parameters.
pub const CURSOR_TEXT_BYTES_MAX: usize = 28 * 1024;
/// How many partitions a topic may have so that each of its cursors fits, whatever the offsets are.
pub const PARTITIONS_MAX: usize = 2048;

/// The longest cursor of so many partitions: mark and count take at most 20 bytes, each offset 10.
const LONGEST: usize = (HEADER_BYTES + 20 + 10 * PARTITIONS_MAX + TAG_BYTES).div_ceil(3) * 4;
const _: () = assert!(LONGEST <= CURSOR_TEXT_BYTES_MAX);

/// The keys that seal and open cursors. Cheap to clone; prints nothing of the keys.
#[derive(Clone)]
pub struct Keys(Arc<[Key]>);

struct Key {
    id: u8,
    aead: LessSafeKey,
}

/// Why keys were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No key was given.
    #[error("there is no cursor key")]
    None,
}

/// Why a cursor was not accepted. The text says no more than the caller may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Longer than [`CURSOR_TEXT_BYTES_MAX`].
    #[error("a cursor has at most {CURSOR_TEXT_BYTES_MAX} characters")]
    TooLong,
    /// Not base64url, cut, changed, of another version, of a key that is gone, or made for another namespace.
    #[error("not a cursor of this namespace")]
    NotOurs,
}

/// Which topic positions belong to: its name, and the id that Kafka gave it where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicMark {
    name: [u8; 8],
    id: Option<[u8; 8]>,
}

/// An opened cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// The topic that the positions belong to.
    pub topic: TopicMark,
    /// The next offset to read of each partition.
    pub positions: Positions,
}

/// Seals the positions of one stream. Cheap to use for every line.
pub struct Sealer {
    keys: Keys,
    aad: Box<[u8]>,
    topic: TopicMark,
    nonce: [u8; NONCE_LEN],
    count: u32,
    plain: Vec<u8>,
}

impl Keys {
    /// Takes keys of 32 random bytes: the first seals, all open.
    ///
    /// # Errors
    /// [`KeysError::None`] when the list is empty.
    pub fn new(keys: Vec<[u8; 32]>) -> Result<Self, KeysError> {
        if keys.is_empty() {
            return Err(KeysError::None);
        }
        Ok(Self(keys.iter().map(Key::new).collect()))
    }

    /// Makes one random key that lives as long as this process: its cursors end with it and are good on no other replica.
    pub fn ephemeral() -> Self {
        let mut key = [0; 32];
        rand::fill(&mut key).expect("the system gives random bytes");
        Self(Arc::new([Key::new(&key)]))
    }

    /// Begins to seal for one namespace and topic.
    pub fn sealer(&self, namespace: &Namespace, topic: TopicMark) -> Sealer {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("the system gives random bytes");
        Sealer {
            keys: self.clone(),
            aad: additional(self.0[0].id, namespace).into(),
            topic,
            nonce,
            count: 0,
            plain: Vec::with_capacity(128),
        }
    }

    /// Opens a cursor that was made for this namespace.
    ///
    /// # Errors
    /// [`CursorError`] when it is too long or none of these keys made it for this namespace.
    pub fn open(&self, namespace: &Namespace, text: &str) -> Result<Opened, CursorError> {
        if text.len() > CURSOR_TEXT_BYTES_MAX {
            return Err(CursorError::TooLong);
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::NotOurs)?;
        if sealed.len() < HEADER_BYTES + TAG_BYTES || sealed[0] != VERSION {
            return Err(CursorError::NotOurs);
        }
        let nonce: [u8; NONCE_LEN] = sealed[2..HEADER_BYTES].try_into().expect("the slice has the nonce's length");
        for key in self.0.iter().filter(|key| key.id == sealed[1]) {
            let mut body = sealed[HEADER_BYTES..].to_vec();
            let aad = Aad::from(additional(key.id, namespace));
            if let Ok(plain) = key.aead.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut body) {
                return decode(plain).ok_or(CursorError::NotOurs);
            }
        }
        Err(CursorError::NotOurs)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Key {
    fn new(key: &[u8; 32]) -> Self {
        let id = digest::digest(&digest::SHA256, key).as_ref()[0];
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has the cipher's length");
        Self { id, aead: LessSafeKey::new(key) }
    }
}

impl TopicMark {
    /// The mark of a topic, with the id that Kafka gave it where that is known.
    pub fn new(name: &TopicName, id: Option<[u8; 16]>) -> Self {
        Self { name: short_hash(name.as_str().as_bytes()), id: id.map(|id| short_hash(&id)) }
    }

    /// Whether both may be the same topic: equal names, and equal ids where both are known.
    pub fn may_be(&self, other: &Self) -> bool {
        self.name == other.name && !matches!((self.id, other.id), (Some(a), Some(b)) if a != b)
    }

    /// Whether the id is known.
    pub fn has_id(&self) -> bool {
        self.id.is_some()
    }
}

impl Sealer {
    /// Appends the cursor of these positions to `out`.
    pub fn seal_into(&mut self, positions: &Positions, out: &mut Vec<u8>) {
        let key = &self.keys.0[0];
        encode(&self.topic, positions, &mut self.plain);
        let mut nonce = self.nonce;
        self.count = self.count.wrapping_add(1);
        let count = self.count.to_be_bytes();
        nonce[NONCE_LEN - 4..].iter_mut().zip(count).for_each(|(n, c)| *n ^= c);
        let tag = key
            .aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&self.aad), &mut self.plain)
            .expect("a cursor is far below the cipher's longest message");
        let mut sealed = Vec::with_capacity(HEADER_BYTES + self.plain.len() + TAG_BYTES);
        sealed.extend_from_slice(&[VERSION, key.id]);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&self.plain);
        sealed.extend_from_slice(tag.as_ref());
        let start = out.len();
        out.resize(start + (sealed.len() * 4).div_ceil(3), 0);
        let written = URL_SAFE_NO_PAD.encode_slice(&sealed, &mut out[start..]).expect("the room was worked out");
        out.truncate(start + written);
    }

    /// The cursor of these positions as text.
    pub fn seal(&mut self, positions: &Positions) -> String {
        let mut out = Vec::new();
        self.seal_into(positions, &mut out);
        String::from_utf8(out).expect("base64 is ASCII")
    }

    /// Another sealer for the same namespace and topic.
    pub fn twin(&self) -> Self {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("the system gives random bytes");
        let (keys, aad, topic) = (self.keys.clone(), self.aad.clone(), self.topic);
        Self { keys, aad, topic, nonce, count: 0, plain: Vec::new() }
    }

    /// Goes on with another state of the topic: its id became known, or it was made again.
    pub fn set_topic(&mut self, topic: TopicMark) {
        self.topic = topic;
    }

    /// The topic that is sealed for.
    pub fn topic(&self) -> TopicMark {
        self.topic
    }
}

fn additional(key_id: u8, namespace: &Namespace) -> Vec<u8> {
    [PURPOSE, &[VERSION, key_id], namespace.as_str().as_bytes()].concat()
}

fn short_hash(bytes: &[u8]) -> [u8; 8] {
    digest::digest(&digest::SHA256, bytes).as_ref()[..8].try_into().expect("SHA-256 has more than 8 bytes")
}

fn encode(topic: &TopicMark, positions: &Positions, plain: &mut Vec<u8>) {
    plain.clear();
    plain.push(if topic.id.is_some() { ID_KNOWN } else { 0 });
    plain.extend_from_slice(&topic.name);
    plain.extend_from_slice(topic.id.as_ref().map_or(&[], |id| id.as_slice()));
    put_varint(plain, positions.len() as u64);
    for offset in positions.iter() {
        put_varint(plain, offset.map_or(0, |offset| offset.unsigned_abs() + 1));
    }
}

fn decode(mut plain: &[u8]) -> Option<Opened> {
    let flags = take(&mut plain, 1)?[0];
    let name = take(&mut plain, 8)?.try_into().ok()?;
    let id = match flags {
        0 => None,
        ID_KNOWN => Some(take(&mut plain, 8)?.try_into().ok()?),
        _ => return None,
    };
    let count = usize::try_from(take_varint(&mut plain)?).ok().filter(|count| *count <= plain.len())?;
    let mut positions = Positions::default();
    for partition in 0..count {
        let stored = take_varint(&mut plain)?;
        if stored > 0 {
            positions.set(i32::try_from(partition).ok()?, i64::try_from(stored - 1).ok()?);
        }
    }
    plain.is_empty().then_some(Opened { topic: TopicMark { name, id }, positions })
}

fn take<'a>(plain: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = plain.split_at_checked(count)?;
    *plain = tail;
    Some(head)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(plain: &mut &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(plain, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
