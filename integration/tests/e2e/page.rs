//! The live-tail page in a real browser: a token is pasted, a namespace chosen, lines flow, are filtered and paused.

use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::browser::Browser;
use fairlead_integration::component::Component;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::{pace, wait_until};
use jiff::Timestamp;

const SHOWS: Duration = Duration::from_secs(20);

#[test]
fn lines_flow_are_filtered_and_paused() {
    if !Component::Chromium.usable() {
        return;
    }
    let _turn = super::turn();
    let stage = Stage::started(Kind::Tansu).unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    let mut write = |stream: Stream, text: &str| {
        writer.line(Timestamp::now(), stream, text.as_bytes()).unwrap();
        writer.flush().unwrap();
    };
    write(Stream::Stdout, "written before <b>the page</b> was opened");
    let token = stage.gateway.ask(&["token", "mint", "--tenant", "payments", "--ttl", "1h"]).unwrap();

    let browser = Browser::start().unwrap();
    browser.open(&format!("{}/", stage.url())).unwrap();
    browser.type_into("#token", &token).unwrap();
    browser.click("#sign-in button").unwrap();
    let shows = |what: &str| {
        let shown = || browser.text("#lines").unwrap_or_default();
        wait_until(&format!("{what} in the page"), SHOWS, || shown().contains(what))
            .map_err(|e| format!("{e}: {}", shown()))
    };
    // Markup in a line is text, not markup.
    shows("written before <b>the page</b> was opened").unwrap();
    write(Stream::Stderr, "written while it is open");
    shows("written while it is open").unwrap();

    browser.click("#pause").unwrap();
    write(Stream::Stdout, "written while paused");
    pace(Duration::from_millis(700));
    assert!(!browser.text("#lines").unwrap().contains("written while paused"));
    browser.click("#pause").unwrap();
    shows("written while paused").unwrap();

    browser.type_into("#grep", "wanted [0-9]+").unwrap();
    browser.click("#filter-form button").unwrap();
    write(Stream::Stdout, "passed over");
    write(Stream::Stdout, "wanted 7");
    shows("wanted 7").unwrap();
    assert!(!browser.text("#lines").unwrap().contains("passed over"));

    // The token is kept in memory alone.
    let kept = browser
        .script("return JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}])");
    assert!(!kept.unwrap().to_string().contains(&token));
    browser.click("#sign-out").unwrap();
    wait_until("the page to forget", SHOWS, || browser.text("#lines").is_ok_and(|text| text.is_empty())).unwrap();
}
