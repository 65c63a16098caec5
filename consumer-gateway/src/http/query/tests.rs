use super::*;

const NOW: &str = "2026-11-20T10:00:00Z";

fn read(query: &str) -> Result<Request, ApiError> {
    let namespace = Namespace::parse("payments").unwrap();
    logs(namespace, Some(query), Some(Kind::Ndjson), NOW.parse().unwrap(), &Settings::default())
}

fn at(text: &str) -> Moment {
    Moment::of(text.parse().unwrap())
}

#[test]
fn starts_and_limits() {
    let hour_ago = at("2026-11-20T09:00:00Z");
    let cases = [
        ("", Start::At(hour_ago), Some(10_000)),
        ("follow=true", Start::At(hour_ago), None),
        ("follow", Start::At(hour_ago), None),
        ("follow=false&limit=5", Start::At(hour_ago), Some(5)),
        ("since=15m", Start::At(at("2026-11-20T09:45:00Z")), Some(10_000)),
        ("since=2026-11-19T10:00:00.5Z", Start::At(at("2026-11-19T10:00:00.5Z")), Some(10_000)),
        ("since=2026-11-19T12:00:00%2B02:00", Start::At(at("2026-11-19T10:00:00Z")), Some(10_000)),
        ("since=2026-11-19T12:00:00+02:00", Start::At(at("2026-11-19T10:00:00Z")), Some(10_000)),
        ("until=2026-11-19T10:00:00Z", Start::At(at("2026-11-19T09:00:00Z")), Some(10_000)),
        ("tail=10", Start::Last { lines: 10, before: None }, None),
        ("tail=0&follow=1", Start::Last { lines: 0, before: None }, None),
        ("before=abc", Start::Last { lines: 10_000, before: Some("abc".into()) }, None),
        ("before=abc&limit=7", Start::Last { lines: 7, before: Some("abc".into()) }, Some(7)),
        ("before=abc&tail=7", Start::Last { lines: 7, before: Some("abc".into()) }, None),
        ("cursor=abc", Start::Cursor("abc".into()), Some(10_000)),
        ("cursor=abc&follow=true&limit=7", Start::Cursor("abc".into()), Some(7)),
    ];
    for (query, start, limit) in cases {
        let request = read(query).unwrap();
        assert_eq!((request.start, request.limit), (start, limit), "{query}");
    }
}

#[test]
fn a_cursor_or_tail_asks_for_no_time_of_its_own() {
    for (query, since) in [
        ("cursor=a", None),
        ("tail=3", None),
        ("cursor=a&since=1m", Some(at("2026-11-20T09:59:00Z"))),
        ("tail=3&since=1m", Some(at("2026-11-20T09:59:00Z"))),
    ] {
        assert_eq!(read(query).unwrap().filter.since, since, "{query}");
    }
}

#[test]
fn filters() {
    let request = read("pod=a&pod=b&container=c&stream=stderr&grep=x%2By&grep_not=z&until=1m&late=all").unwrap();
    assert_eq!(
        (request.filter.pods, request.filter.containers),
        (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()])
    );
    assert_eq!((request.filter.stream.as_deref(), request.late), (Some("stderr"), Late::All));
    assert_eq!(request.filter.grep.unwrap().as_str(), "x+y");
    assert!(request.filter.grep_not.is_some());
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("tial=5", "tial"),
        ("Since=5m", "Since"),
        ("label=a", "label"),
        ("=x", ""),
        ("namespace=other", "namespace"),
        ("since=5m&since=6m", "since"),
        ("since=yesterday", "since"),
        ("since=15", "since"),
        ("since=", "since"),
        ("until=x", "until"),
        ("until=1m&follow=true", "until"),
        ("since=1m&until=2m", "since"),
        ("since=2026-11-19T10:00:01Z&until=2026-11-19T10:00:00Z&tail=3", "since"),
        ("late=1m", "late"),
        ("until=1m&late=x", "late"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=+1", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=1000001", "limit"),
        ("tail=100001", "tail"),
        ("tail=1&cursor=a", "tail"),
        ("before=b&cursor=a", "before"),
        ("before=b&follow=true", "before"),
        ("follow=yes", "follow"),
        ("stream=both", "stream"),
        ("grep=(", "grep"),
        ("grep_not=(", "grep_not"),
        ("prefix=x", "prefix"),
        ("timestamps=x", "timestamps"),
    ];
    for (query, expected) in cases {
        match read(query) {
            Err(ApiError::Parameter { name, .. }) => assert_eq!(name, expected, "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    let many: String = (0..65).map(|n| format!("pod=p{n}&")).collect();
    assert!(matches!(read(&many), Err(ApiError::Parameter { name, .. }) if name == "pod"));
    assert!(read(&format!("grep={}", "a".repeat(QUERY_BYTES_MAX))).is_err());
    assert!(none(Some("")).is_ok() && none(None).is_ok() && none(Some("a=b")).is_err());
}

#[test]
fn text_formats() {
    for (query, expected) in [
        ("", Format::Text { prefix: true, timestamps: false }),
        ("pod=a&container=b", Format::Text { prefix: false, timestamps: false }),
        ("pod=a", Format::Text { prefix: true, timestamps: false }),
        ("pod=a&container=b&prefix=pod&timestamps", Format::Text { prefix: true, timestamps: true }),
        ("prefix=none&timestamps=true", Format::Text { prefix: false, timestamps: true }),
    ] {
        let namespace = Namespace::parse("payments").unwrap();
        let request =
            logs(namespace, Some(query), Some(Kind::Text), NOW.parse().unwrap(), &Settings::default()).unwrap();
        assert_eq!(request.format, expected, "{query}");
    }
}

#[test]
fn accept_headers() {
    let cases: [(&[&str], Option<Kind>); 13] = [
        (&[], Some(Kind::Ndjson)),
        (&["*/*"], Some(Kind::Ndjson)),
        (&["application/x-ndjson"], Some(Kind::Ndjson)),
        (&["application/*"], Some(Kind::Ndjson)),
        (&["text/plain"], Some(Kind::Text)),
        (&["text/*"], Some(Kind::Text)),
        (&["text/plain;q=0.5, application/x-ndjson;q=0.4"], Some(Kind::Text)),
        (&["text/plain", "application/x-ndjson"], Some(Kind::Ndjson)),
        (&["text/html, text/plain;q=0.9, */*;q=0.8"], Some(Kind::Text)),
        (&["TEXT/Plain; charset=utf-8"], Some(Kind::Text)),
        (&["application/x-ndjson;q=0, */*"], Some(Kind::Text)),
        (&["text/event-stream"], None),
        (&["application/json"], None),
    ];
    for (headers, expected) in cases {
        assert_eq!(accepted(headers.iter().copied()), expected, "{headers:?}");
    }
}
