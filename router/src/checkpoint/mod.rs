//! What is remembered, and only after Kafka acknowledged it. Input: acknowledgements. Output: positions that survive `kill -9`.

mod ledger;
mod state;
mod store;

pub use ledger::{Ledger, Settled};
pub use state::{DescriptorState, EpochState, FileState, Guard, InstanceKey, InstanceState, Owed, PodState};
#[cfg(test)]
pub use store::FAIL_WRITES;
pub use store::{Loaded, Store, StoreError};
