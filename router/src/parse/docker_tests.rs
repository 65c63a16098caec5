use proptest::prelude::*;

use super::*;

const TIME: &str = "2026-11-20T10:00:00.123456789Z";

/// What a line says, for comparing.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    stream: Stream,
    partial: bool,
    content: Vec<u8>,
    time: String,
}

fn read(line: &[u8]) -> Option<Said> {
    // What a line before it left there must not matter.
    let mut scratch = b"left".to_vec();
    let line = parse(line, &mut scratch)?;
    let time = String::from_utf8(line.time.as_written().to_vec()).unwrap();
    Some(Said { stream: line.stream, partial: line.partial, content: line.content.to_vec(), time })
}

fn said(partial: bool, content: &[u8]) -> Option<Said> {
    Some(Said { stream: Stream::Stdout, partial, content: content.to_vec(), time: TIME.to_owned() })
}

/// A line with this between the quotes of `log`.
fn with_log(log: &[u8]) -> Vec<u8> {
    [br#"{"log":""#, log, br#"","stream":"stdout","time":""#, TIME.as_bytes(), br#""}"#].concat()
}

#[test]
fn what_stands_in_log() {
    let check = |log: &[u8], expected: Option<Said>| {
        let (line, shown) = (with_log(log), String::from_utf8_lossy(log).into_owned());
        assert_eq!(read(&line), expected, "{shown}");
        // Another layout means the same.
        let spaced = [b" ", &line[..line.len() - 1], b" , \"x\" : null } "].concat();
        assert_eq!(read(&spaced), expected, "{shown}, laid out otherwise");
    };
    check(br"hello\n", said(false, b"hello"));
    check(br"\n", said(false, b""));
    check(b"", said(true, b""));
    check(b"hello", said(true, b"hello"));
    check(br"two\n\n", said(false, b"two\n"));
    check(br"a\\n", said(true, br"a\n"));
    check(br"a\\\n", said(false, br"a\"));
    check(br"with a return\r\n", said(false, b"with a return\r"));
    check(br"return alone\r", said(true, b"return alone\r"));
    check(br#"\"a line with \\\""#, said(true, br#""a line with \""#));
    check(br"with \u0026 \u003c \u003e\n", said(false, b"with & < >"));
    check(br"\u003C\u003E", said(true, b"<>"));
    check(br"\u2028 \u2029\n", said(false, "\u{2028} \u{2029}".as_bytes()));
    check(br"cut \ufffd\ufffd", said(true, "cut \u{fffd}\u{fffd}".as_bytes()));
    check(br"\u0000\u001b[31m\t\b\f\/\n", said(false, b"\x00\x1b[31m\t\x08\x0c/"));
    check(br"a ship \ud83d\udea2\n", said(false, "a ship \u{1f6a2}".as_bytes()));
    check(br"\u000a", said(false, b""));
    check("🚀 ψ ω β\u{7f}\\n".as_bytes(), said(false, "🚀 ψ ω β\u{7f}".as_bytes()));
    check(b"not UTF-8: \xff\xc3\\n", said(false, b"not UTF-8: \xff\xc3"));
    check(b"raw \x01 and \x00\\n", said(false, b"raw \x01 and \x00"));
    check(br"half a pair \ud83d\n", said(false, b"half a pair \xed\xa0\xbd"));
    for bad in
        [br"\".as_slice(), br"\x", br"\u12", br"\u12g4", br"\u+123", br"\", br#"a"b"#, br"\N", b"a\"", b"\\u00e\xc3"]
    {
        check(bad, None);
    }
    let long = "x".repeat(16 << 10);
    check(long.as_bytes(), said(true, long.as_bytes()));
    let worst = "\\ufffd".repeat(16 << 10);
    check(worst.as_bytes(), said(true, "\u{fffd}".repeat(16 << 10).as_bytes()));
}

#[test]
fn what_members_there_may_be() {
    let check = |line: &str, expected: Option<Said>| assert_eq!(read(line.as_bytes()), expected, "{line}");
    let rest = format!(r#""stream":"stdout","time":"{TIME}""#);
    check(&format!("{{{rest}}}"), said(true, b""));
    check(&format!(r#"{{"log":null,{rest}}}"#), said(true, b""));
    check(&format!(r#"{{"time":"{TIME}","log":"a\n","stream":"stdout"}}"#), said(false, b"a"));
    check(&format!("\t{{ \"log\" : \"a\\n\" , {rest} }}\r"), said(false, b"a"));
    check(&format!(r#"{{"l\u006fg":"a\n",{rest}}}"#), said(false, b"a"));
    check(&format!(r#"{{"log":"a\n","stream":"std\u006fut","time":"{TIME}"}}"#), said(false, b"a"));
    check(&format!(r#"{{"log":"a\n","stream":"stdout","time":"\u0032{}"}}"#, &TIME[1..]), said(false, b"a"));
    check(&format!(r#"{{"LOG":"b","Log":1,"log":"a\n",{rest}}}"#), said(false, b"a"));
    for attrs in [
        r#"{"tag":"a7317399f3f8/test-container"}"#,
        r#"{"rack":"101","dc":"lhr","":""}"#,
        "{}",
        r#"{"a":"quote \" brace } and \\"}"#,
        r#"{"hello":"world","value":1234}"#,
        r#"{"a":{"b":[1,2.5e-3,{"c":null}]}}"#,
        "null",
        "[]",
        "-0.1e+5",
        r#""text""#,
        "false",
    ] {
        check(&format!(r#"{{"log":"a\n","stream":"stdout","attrs":{attrs},"time":"{TIME}"}}"#), said(false, b"a"));
        check(&format!(r#"{{"attrs":{attrs},"log":"a\n",{rest}}}"#), said(false, b"a"));
    }
    let stderr = Said { stream: Stream::Stderr, ..said(false, b"a").unwrap() };
    check(&format!(r#"{{"log":"a\n","stream":"stderr","time":"{TIME}"}}"#), Some(stderr));
    for time in ["0001-01-01T00:00:00Z", "2017-09-01T01:01:01.000000001Z", "2026-11-20T10:00:00.5+01:00"] {
        let expected = Said { time: time.to_owned(), ..said(false, b"a").unwrap() };
        check(&format!(r#"{{"log":"a\n","stream":"stdout","time":"{time}"}}"#), Some(expected));
    }
}

#[test]
fn what_is_no_line() {
    let check = |line: &str| assert_eq!(read(line.as_bytes()), None, "{line}");
    let good = String::from_utf8(with_log(br"a\n")).unwrap();
    assert!(read(good.as_bytes()).is_some());
    (0..good.len()).for_each(|end| check(&good[..end]));
    for (from, to) in [
        ("{", "{{"),
        ("}", "}}"),
        ("}", "} x"),
        ("}", ",}"),
        ("}", r#","log":"b"}"#),
        ("}", r#","x":01}"#),
        ("}", r#","x":.5}"#),
        ("}", r#","x":nul}"#),
        ("}", r#","x":"\q"}"#),
        ("}", r#","x":[1,]}"#),
        ("}", "]"),
        ("stdout", "stdin"),
        ("stdout", ""),
        ("stdout", "stdout "),
        ("stdout", "STDOUT"),
        (r#""stdout""#, "1"),
        (r#""stdout""#, "null"),
        (r#""stream":"stdout","#, ""),
        (r#"{"log""#, r#"{"stream":"stdout","log""#),
        (r#""a\n""#, "1"),
        (r#""a\n""#, r#"["a"]"#),
        (r#""a\n""#, "[97]"),
        (r#""a\n""#, "true"),
        (r#""a\n""#, "a"),
        ("2026", "26"),
        ("Z", ""),
        ("Z", " "),
        (TIME, ""),
        (TIME, "1763632800"),
        ("time", "Time"),
    ] {
        let line = good.replacen(from, to, 1);
        assert_ne!(line, good);
        check(&line);
    }
    check("");
    check("2026-11-20T10:00:00Z stdout F x");
    check(&format!(r#"["a\n","stdout","{TIME}"]"#));
    check(&format!(r#""{}""#, good.replace('"', "'")));
    check(&format!("{good}{good}"));
    check("\0\0\0\0\0\0\0\0");
    check(&"[".repeat(LINE_BYTES_MAX));
    check(&good.replace('}', &format!(r#","x":{}"#, "[".repeat(100_000))));
    // A line that a full disk cut off, and the next behind it.
    check(&format!("{}{good}", &good[..good.len() / 2]));
}

#[test]
fn a_line_has_a_bound() {
    let with_bytes = |bytes: usize| {
        let line = format!(r#"{{"log":"a\n","stream":"stdout","attrs":{{"a":"{}"}},"time":"{TIME}"}}"#, "");
        line.replace(r#""a":"""#, &format!(r#""a":"{}""#, "x".repeat(bytes - line.len())))
    };
    assert_eq!(read(with_bytes(LINE_BYTES_MAX).as_bytes()), said(false, b"a"));
    assert_eq!(read(with_bytes(LINE_BYTES_MAX + 1).as_bytes()), None);
}

/// What the library makes of a line on a way of its own.
fn by_the_library(line: &[u8]) -> Option<Said> {
    #[derive(Deserialize)]
    struct Plain {
        log: Option<String>,
        stream: String,
        time: String,
    }
    let text = String::from_utf8_lossy(line);
    let Plain { log, stream, time } =
        serde_json::from_str(&text).ok().filter(|_| text.trim_start().starts_with('{'))?;
    let mut content = log.unwrap_or_default();
    let partial = !content.ends_with('\n');
    content.truncate(content.len() - usize::from(!partial));
    let stream = match stream.as_str() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    Timestamp::parse(time.as_bytes())?;
    Some(Said { stream, partial, content: content.into_bytes(), time })
}

fn agrees(line: &[u8]) -> Result<(), TestCaseError> {
    let lossy = |said: Said| Said { content: String::from_utf8_lossy(&said.content).into_owned().into_bytes(), ..said };
    let shown = String::from_utf8_lossy(line);
    prop_assert_eq!(read(line).map(lossy), by_the_library(line), "{}", shown);
    Ok(())
}

/// A JSON string with its quotes, each character in one of the ways in which it may be written.
fn json_string() -> impl Strategy<Value = String> {
    let character = (
        prop_oneof![Just('"'), Just('\\'), Just('\n'), Just('<'), Just('\u{2028}'), Just('\u{1f6a2}'), any::<char>()],
        0..4_u8,
    );
    proptest::collection::vec(character, 0..12).prop_map(|characters| {
        let mut text = String::from("\"");
        for (character, way) in characters {
            let mut units = [0; 2];
            match (character, way) {
                (_, 0) => character.encode_utf16(&mut units).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
                (_, 1) => character.encode_utf16(&mut units).iter().for_each(|unit| text += &format!("\\u{unit:04X}")),
                _ => {
                    let quoted = serde_json::to_string(&character).unwrap();
                    text += &quoted[1..quoted.len() - 1];
                }
            }
        }
        text + "\""
    })
}

/// Something like a line: the right members in any order, among others, laid out in any way.
fn object() -> impl Strategy<Value = String> {
    let space = prop_oneof![4 => Just(""), 1 => Just(" ")];
    let stream =
        prop_oneof![6 => Just(r#""stdout""#), 6 => Just(r#""stderr""#), 1 => Just(r#""stdin""#), 1 => Just("1")];
    let attrs = prop_oneof![
        (json_string(), json_string()).prop_map(|(name, value)| format!("{{{name}:{value}}}")),
        Just(r#"{"a":"b","c":"d"}"#.to_owned()),
        Just("[1,{}]".to_owned()),
    ];
    let other = (json_string(), json_string());
    (json_string(), stream, attrs, other, space, 0..64_u32, any::<bool>()).prop_map(
        |(log, stream, attrs, (name, value), space, which, written)| {
            let mut members = vec![format!(r#""log"{space}:{space}{log}"#), format!(r#""stream":{stream}"#)];
            if which & 1 == 1 {
                members.push(format!(r#""attrs":{attrs}"#));
            }
            members.push(format!(r#""time"{space}:"{TIME}""#));
            if !written {
                members.push(format!("{name}:{value}"));
                members.rotate_left(which as usize / 2 % 5);
            }
            format!("{space}{{{}}}{space}", members.join(&format!("{space},{space}")))
        },
    )
}

proptest! {
    #[test]
    fn any_object_means_what_the_library_says(line in object()) {
        agrees(line.as_bytes())?;
    }

    #[test]
    fn any_damage_means_what_the_library_says(
        line in object(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), prop::sample::select(br#""\{}[]:,nul0/u-."#.to_vec()), 0..3_u8), 1..4),
    ) {
        let mut bytes = line.into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => _ = bytes.remove(at),
            }
            if bytes.is_empty() {
                break;
            }
        }
        // Half of a pair in an escape, a name that is not UTF-8: the table says what becomes of these.
        let is_in_table = std::str::from_utf8(&bytes).is_err() || bytes.windows(3).any(|three| three.eq_ignore_ascii_case(br"\ud"));
        if !is_in_table {
            agrees(&bytes)?;
        }
    }

    #[test]
    fn any_bytes_in_log_come_back(content in proptest::collection::vec(any::<u8>(), 0..60)) {
        let escaped: Vec<u8> = content.iter().flat_map(|byte| match byte {
            b'"' => br#"\""#.to_vec(),
            b'\\' => br"\\".to_vec(),
            b'\n' => br"\n".to_vec(),
            other => vec![*other],
        }).collect();
        let partial = content.last() != Some(&b'\n');
        let expected = content.strip_suffix(b"\n").unwrap_or(&content);
        prop_assert_eq!(read(&with_log(&escaped)), said(partial, expected));
    }
}
