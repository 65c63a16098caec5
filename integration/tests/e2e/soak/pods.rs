//! Pods whose containers are written by conmon, that come, are rotated, end and are removed.

use std::time::{Duration, Instant};

use fairlead_integration::conmon::Conmon;
use fairlead_integration::folders::binary;
use fairlead_integration::generator::Identity;
use fairlead_integration::stage::Stage;
use fairlead_integration::workload::Script;

/// Live, newest rotated, and one zipped: older ones are removed while a container runs.
const FILES: usize = 3;
const ROTATE_EVERY: Duration = Duration::from_secs(1);
/// The kubelet removes a deleted pod's logs so long after its end.
const REMOVED_AFTER: Duration = Duration::from_millis(1_500);

/// One pod with one container.
pub struct Pod {
    pub identity: Identity,
    pub script: Script,
    pub conmon: Conmon,
    pub rotations: u32,
    next_rotation: Instant,
    ended: Option<Instant>,
}

impl Pod {
    /// Starts a pod that prints a script of that name.
    pub fn start(stage: &Stage, namespace: &str, script: Script) -> Pod {
        let identity = Identity::new(namespace, &script.name, "app");
        Pod::start_as(stage, identity, script)
    }

    /// Starts a pod that has an identity already.
    pub fn start_as(stage: &Stage, identity: Identity, script: Script) -> Pod {
        let program = binary("numbered-lines").unwrap();
        let conmon = Conmon::start(stage.pods(), &identity, 0, &program, &script.arguments()).unwrap();
        Pod { identity, script, conmon, rotations: 0, next_rotation: Instant::now() + ROTATE_EVERY, ended: None }
    }

    /// Rotates it each second while it runs; false as soon as it has ended.
    pub fn tend(&mut self) -> bool {
        if !self.conmon.running() {
            self.ended.get_or_insert_with(Instant::now);
            return false;
        }
        if Instant::now() >= self.next_rotation && self.conmon.rotate(FILES).unwrap() {
            self.rotations += 1;
            self.next_rotation += ROTATE_EVERY;
        }
        true
    }

    /// Removes the pod's folder once it has ended and the kubelet would do so; says whether it did.
    pub fn remove_if_due(&self, stage: &Stage) -> bool {
        let due = self.ended.is_some_and(|ended| ended.elapsed() >= REMOVED_AFTER);
        if due {
            std::fs::remove_dir_all(self.identity.pod_folder(stage.pods())).unwrap();
        }
        due
    }
}

/// What pods printed, as judges take it.
pub fn written(pods: &[Pod]) -> Vec<(&Identity, &Script)> {
    pods.iter().map(|pod| (&pod.identity, &pod.script)).collect()
}
