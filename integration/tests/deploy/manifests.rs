//! The plain manifests are what the chart renders to now.

use fairlead_integration::component::Component;
use fairlead_integration::helm;

use super::deploy;

#[test]
fn manifests_are_what_the_chart_renders_to() {
    if !Component::Helm.usable() {
        return;
    }
    let mut names = Vec::new();
    for (name, text) in helm::manifests().unwrap() {
        let committed = std::fs::read_to_string(deploy("manifests").join(name)).unwrap_or_default();
        let differs = committed.lines().zip(text.lines()).find(|(old, new)| old != new);
        assert!(
            committed == text,
            "deploy/manifests/{name} is not what the chart renders to, run `make manifests`: {differs:?}"
        );
        assert!(!helm::documents(&text).unwrap().is_empty());
        names.push(name.to_owned());
    }
    let there =
        std::fs::read_dir(deploy("manifests")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    for name in there {
        assert!(names.contains(&name), "deploy/manifests/{name} is rendered by nothing");
    }
}
