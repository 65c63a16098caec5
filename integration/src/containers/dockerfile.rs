//! A Dockerfile read into stages and steps, as far as ours uses the language.

use anyhow::{Context, Result, bail, ensure};

/// `FROM … AS …` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it is called.
    pub name: String,
    /// The image or stage that it begins with.
    pub from: String,
    /// Its steps in order.
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `RUN`: folders that cache mounts make, and the text for the shell.
    Run(Vec<String>, String),
    /// `COPY`: the stage that it is from, if it is not the context; sources; destination.
    Copy(Option<String>, Vec<String>, String),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER`.
    User(String),
    /// `ENTRYPOINT`.
    Entrypoint(Vec<String>),
    /// `CMD`.
    Cmd(Vec<String>),
    /// `ARG` with its default.
    Arg(String, String),
    /// What changes no file and no process: `LABEL`, `EXPOSE`.
    Other(String),
}

/// Reads a Dockerfile.
///
/// # Errors
/// An instruction or form that is not known here.
pub fn parse(text: &str) -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    for line in whole_lines(text) {
        let (word, rest) = line.split_once(' ').with_context(|| line.clone())?;
        let rest = rest.trim();
        if word == "FROM" {
            let mut words = rest.split_whitespace();
            let (Some(from), Some("AS"), Some(name)) = (words.next(), words.next(), words.next()) else {
                bail!("FROM wants a name: {line}");
            };
            stages.push(Stage { name: name.to_owned(), from: from.to_owned(), steps: Vec::new() });
            continue;
        }
        let step = step(word, rest).with_context(|| line.clone())?;
        stages.last_mut().context("an instruction before FROM")?.steps.push(step);
    }
    ensure!(!stages.is_empty(), "no stage");
    Ok(stages)
}

/// Lines with what is continued joined; comments are left out, also between continued lines.
fn whole_lines(text: &str) -> Vec<String> {
    let (mut whole, mut open) = (Vec::new(), String::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        match line.trim_end().strip_suffix('\\') {
            Some(begun) => open += &format!("{} ", begun.trim()),
            None => whole.push(std::mem::take(&mut open) + line.trim()),
        }
    }
    whole
}

fn step(word: &str, rest: &str) -> Result<Step> {
    let list = || serde_json::from_str::<Vec<String>>(rest).context("a list in brackets");
    Ok(match word {
        "RUN" => {
            let (flags, text): (Vec<&str>, Vec<&str>) = {
                let words: Vec<&str> = rest.split(' ').collect();
                let flags = words.iter().take_while(|word| word.starts_with("--") || word.is_empty()).count();
                (words[..flags].to_vec(), words[flags..].to_vec())
            };
            let cached = |flag: &str| {
                let options = flag.strip_prefix("--mount=type=cache,")?;
                options.split(',').find_map(|option| option.strip_prefix("target=")).map(str::to_owned)
            };
            let flags = flags.into_iter().filter(|flag| !flag.is_empty());
            let caches = flags.map(|flag| cached(flag).with_context(|| flag.to_owned()));
            Step::Run(caches.collect::<Result<_>>()?, text.join(" "))
        }
        "COPY" => {
            let mut words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            let from = words.first().and_then(|word| word.strip_prefix("--from=")).map(str::to_owned);
            words.drain(..usize::from(from.is_some()));
            ensure!(words.iter().all(|word| !word.starts_with("--")), "an unknown flag");
            let to = words.pop().context("a destination")?;
            ensure!(!words.is_empty(), "a source");
            Step::Copy(from, words, to)
        }
        "WORKDIR" => Step::Workdir(rest.to_owned()),
        "USER" => Step::User(rest.to_owned()),
        "ENTRYPOINT" => Step::Entrypoint(list()?),
        "CMD" => Step::Cmd(list()?),
        "ARG" => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
            Step::Arg(name.to_owned(), value.to_owned())
        }
        "LABEL" | "EXPOSE" => Step::Other(rest.to_owned()),
        _ => bail!("unknown here"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ours_uses() {
        let text = "# head\nFROM a:1 AS build\nRUN --mount=type=cache,id=x,target=/c \\\n    # why\n    make it \\\n    && done\n\
                    COPY one two/ ./\nFROM build AS end\nCOPY --from=build /x /y\nUSER 1:1\nENTRYPOINT [\"/x\"]\nARG V=2\nEXPOSE 1 2\n";
        let stages = parse(text).unwrap();
        let texts = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(stages[0].steps[0], Step::Run(texts(&["/c"]), "make it && done".to_owned()));
        assert_eq!(stages[0].steps[1], Step::Copy(None, texts(&["one", "two/"]), "./".to_owned()));
        let expected = [
            Step::Copy(Some("build".to_owned()), texts(&["/x"]), "/y".to_owned()),
            Step::User("1:1".to_owned()),
            Step::Entrypoint(texts(&["/x"])),
            Step::Arg("V".to_owned(), "2".to_owned()),
            Step::Other("1 2".to_owned()),
        ];
        assert_eq!((stages[1].from.as_str(), stages[1].steps.as_slice()), ("build", expected.as_slice()));
        for bad in ["RUN x", "FROM a", "FROM a AS b\nADD x y", "FROM a AS b\nCOPY --chown=1 x y", "FROM a AS b\nCMD x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
