//! What a newcomer reads: the page's address, a token for each team, and `curl` lines that work as pasted.

use std::io::Write;

use anyhow::{Context, Result};

use super::layout::{Layout, Team};
use crate::process::Program;

pub(super) fn print(out: &mut impl Write, layout: &Layout, gateway: &Program) -> Result<()> {
    let mut tokens = Vec::new();
    for team in &layout.teams {
        tokens.push(gateway.ask(&["token", "mint", "--tenant", &team.name, "--ttl", "24h"])?);
    }
    let text = text(&layout.url(), &layout.teams, &tokens) + "\nCtrl-C stops all of it.\n\n";
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("print")
}

/// What two teams are told.
pub(super) fn text(url: &str, teams: &[Team], tokens: &[String]) -> String {
    let own = |team: usize| teams[team].namespaces[0].as_str();
    let curl = |flags: &str, team: usize, path: &str| {
        format!("curl -s{flags} -H 'Authorization: Bearer {}' '{url}{path}'\n", tokens[team])
    };
    let mut text = format!("\nThe page: {url}/\n\n");
    for (team, token) in teams.iter().zip(tokens) {
        text += &format!("Token of {} (paste it into the page; good for a day):\n{token}\n\n", team.name);
    }
    let (mine, other) = (own(0), own(1));
    text += &format!("Lines to paste. {} follows {mine} live, as text:\n", teams[0].name);
    text += &curl("N -H 'Accept: text/plain'", 0, &format!("/v1/namespaces/{mine}/logs?tail=10&follow=true"));
    text += "the last minute, as NDJSON:\n";
    text += &curl("", 0, &format!("/v1/namespaces/{mine}/logs?since=1m"));
    text += &format!("{} follows {other}:\n", teams[1].name);
    text += &curl("N -H 'Accept: text/plain'", 1, &format!("/v1/namespaces/{other}/logs?tail=10&follow=true"));
    text += &format!("{} asks for {other}: not its own, so the same 404 as for what does not exist:\n", teams[0].name);
    text += &curl("i", 0, &format!("/v1/namespaces/{other}/logs"));
    text += "who am I, and what may I read:\n";
    text += &curl("", 0, "/v1/me");
    text += &curl("", 0, "/v1/namespaces");
    text
}

/// What whoever may read everything is told: these namespaces are there.
pub(super) fn text_for_host(url: &str, namespaces: &[String], token: &str) -> String {
    let curl = |flags: &str, path: &str| format!("curl -s{flags} -H 'Authorization: Bearer {token}' '{url}{path}'\n");
    let mut text = format!("\nThe page: {url}/\n\nToken (paste it into the page; good for a day):\n{token}\n\n");
    text += &format!("Namespaces: {}\n\nLines to paste. All of them:\n", namespaces.join(", "));
    text += &curl("", "/v1/namespaces");
    for namespace in namespaces.iter().take(5) {
        text += &format!("{namespace} live, as text:\n");
        text += &curl("N -H 'Accept: text/plain'", &format!("/v1/namespaces/{namespace}/logs?tail=10&follow=true"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curl_line_stands_alone() {
        let team = |name: &str| Team { name: name.to_owned(), namespaces: vec![name.to_owned()] };
        let text = text("http://h:1", &[team("a"), team("b")], &["ta".to_owned(), "tb".to_owned()]);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("curl")).collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1], "curl -s -H 'Authorization: Bearer ta' 'http://h:1/v1/namespaces/a/logs?since=1m'");
        assert!(lines[2].contains("Bearer tb") && lines[2].contains("/b/logs?tail=10&follow=true"));
        assert!(lines[3].starts_with("curl -si ") && lines[3].contains("Bearer ta") && lines[3].contains("/b/"));
        assert!(text.lines().any(|line| line == "ta") && text.lines().any(|line| line == "tb"));
    }
}
