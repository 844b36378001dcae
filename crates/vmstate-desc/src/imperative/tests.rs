use super::*;
use crate::dynamic::Value;
use crate::error::ErrorKind;
use crate::field::ListKind;

const LOOP: ListKind = ListKind::Prefixed(4);

fn failure(record: impl FnOnce(&mut Recorder)) -> RecordError {
    let mut recorder = Recorder::new();
    record(&mut recorder);
    recorder.finish("dev", 1).unwrap_err()
}

#[test]
fn members_that_not_all_elements_have_are_conditional() {
    let mut recorder = Recorder::new();
    recorder.list("q", LOOP, [(1_u8, None), (2, Some(7_u16)), (3, None)], {
        |out, (id, vector)| {
            if let Some(vector) = vector {
                out.put("vector", vector);
            }
            out.put("id", id);
        }
    });
    let state = recorder.finish("dev", 3).unwrap();
    let field = &state.fields().next().unwrap().0;
    let child = field.element.child().unwrap();
    let found: Vec<_> = child
        .fields()
        .iter()
        .map(|f| (&*f.name, f.conditional))
        .collect();
    assert_eq!(found, [("vector", true), ("id", false)]);
    let mut replayer = Replayer::of_state(&state);
    let mut ids = Vec::new();
    let load = |input: &mut Replayer<'_>| {
        if ids.len() == 1 {
            assert_eq!(input.get::<u16>("vector")?, 7);
        }
        ids.push(input.get::<u8>("id")?);
        Ok(())
    };
    replayer.list("q", LOOP, 3, load).unwrap();
    assert_eq!(ids, [1, 2, 3]);
    replayer.finish().unwrap();
}

#[test]
fn runs_that_make_no_description_are_refused() {
    let twice = failure(|out| {
        out.put("a", 1_u8);
        out.put("a", 2_u8);
    });
    assert_eq!(twice.to_string(), "dev/a: put twice");
    let order = failure(|out| {
        out.list("l", LOOP, [true, false], |out, first| {
            if first {
                out.put("a", 1_u8);
            }
            out.put("b", 1_u8);
            if !first {
                out.put("a", 1_u8);
            }
        });
    });
    assert!(
        matches!(&order, RecordError::Order { path } if path == "dev/l[1]/a"),
        "{order}"
    );
    let changed = failure(|out| {
        out.list("l", LOOP, [1, 2], |out, length| {
            out.put_buffer("b", &vec![0; length]);
        });
    });
    assert_eq!(
        changed.to_string(),
        "dev/l[1]/b: is a buffer of 2 bytes, and was a buffer of 1 bytes in an earlier element"
    );
    let name = failure(|out| out.put("", 1_u8));
    assert!(matches!(name, RecordError::Description(_)), "{name}");
}

#[test]
fn calls_that_do_not_fit_say_what_is_there() {
    let mut recorder = Recorder::new();
    recorder.put("a", 1_u32);
    recorder.put_buffer("b", b"xy");
    recorder.put_byte_array("c", b"xyz");
    recorder.part("d", |out| out.put("e", true));
    recorder.list("f", LOOP, [1_u8, 2], |out, x| out.put("x", x));
    let state = recorder.finish("dev", 1).unwrap();
    let text = |result: Result<(), crate::Error>| result.unwrap_err().to_string();
    let fresh = || Replayer::of_state(&state);

    let wrong = "the code asks for a (uint16), and a (uint32) comes next";
    assert_eq!(text(fresh().get::<u16>("a").map(drop)), wrong);
    let wrong = "the code asks for b (a buffer of 2 bytes), and a (uint32) comes next";
    assert_eq!(text(fresh().get_buffer("b", &mut [0; 2])), wrong);
    let wrong = "the code asks for nothing more, and a (uint32) comes next";
    assert_eq!(text(fresh().finish()), wrong);

    let mut replayer = fresh();
    assert_eq!(replayer.get::<u32>("a").unwrap(), 1);
    let wrong = "the code asks for b (a buffer of 3 bytes), and b (a buffer of 2 bytes) comes next";
    assert_eq!(text(replayer.get_buffer("b", &mut [0; 3])), wrong);

    let mut replayer = fresh();
    replayer.get::<u32>("a").unwrap();
    replayer.get_buffer("b", &mut [0; 2]).unwrap();
    let error = replayer.get_byte_array("c", 2).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::OutOfRange { .. }),
        "{error}"
    );
    // What a part leaves over is an error, too.
    let wrong = "d: the code asks for nothing more, and e (bool) comes next";
    assert_eq!(text(replayer.part("d", |_| Ok(()))), wrong);
    let mut replayer = fresh();
    replayer.get::<u32>("a").unwrap();
    replayer.get_buffer("b", &mut [0; 2]).unwrap();
    assert_eq!(replayer.get_byte_array("c", 3).unwrap(), b"xyz");
    assert!(replayer.part("d", |input| input.get::<bool>("e")).unwrap());
    let error = replayer.list("f", LOOP, 1, |_| Ok(())).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::OutOfRange { .. }),
        "{error}"
    );
    assert!(matches!(state.get("f"), Some(Value::List(all)) if all.len() == 2));
}
