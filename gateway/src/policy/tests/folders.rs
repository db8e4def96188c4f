use std::{fs, os::unix, path::Path};

use super::*;
use crate::policy::limits;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn problem(folder: &Path) -> (String, Problem) {
    let mut faults = read_folder(folder).expect_err("a fault").faults;
    assert_eq!(faults.len(), 1);
    let fault = faults.remove(0);
    (fault.file, fault.problem)
}

#[test]
fn reads_what_belongs_to_the_set() {
    let folder = folder(&[
        ("scheme/b.cedar", b"b"),
        ("scheme/a.cedar", b"a"),
        ("agency/be/x/own.tests.json", b"{}"),
        ("tests/all.tests.json", b"{}"),
        ("README.md", b"how to"),
        (".git/config", b"\xff"),
    ]);
    // As a mounted Kubernetes ConfigMap has them.
    unix::fs::symlink("a.cedar", folder.path().join("scheme/c.cedar")).unwrap();
    let paths: Vec<_> = read_folder(folder.path()).unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(
        paths,
        [
            "agency/be/x/own.tests.json",
            "scheme/a.cedar",
            "scheme/b.cedar",
            "scheme/c.cedar",
            "tests/all.tests.json"
        ]
    );
}

#[test]
fn refuses_what_does_not() {
    for (path, bytes, expected) in [
        ("scheme/a.txt", b"".as_slice(), Problem::UnknownPath),
        ("a.cedar", b"", Problem::UnknownPath),
        ("scheme/a.cedar", b"\xff", Problem::NotUtf8),
        ("scheme/a.cedar", &vec![b' '; limits::FILE_BYTES + 1], Problem::FileTooLarge),
    ] {
        assert_eq!(problem(folder(&[(path, bytes)]).path()), (path.to_owned(), expected));
    }
    let deep = folder(&[("agency/be/x/y/a.cedar", b"")]);
    assert_eq!(problem(deep.path()), ("agency/be/x/y".to_owned(), Problem::UnknownPath));
    let full = vec![b' '; limits::FILE_BYTES];
    let large = folder(&[]);
    fs::create_dir(large.path().join("scheme")).unwrap();
    for n in 0..=limits::SET_BYTES / limits::FILE_BYTES {
        fs::write(large.path().join(format!("scheme/{n}.cedar")), &full).unwrap();
    }
    assert_eq!(problem(large.path()).1, Problem::SetTooLarge);
    assert!(matches!(problem(Path::new("/nowhere")).1, Problem::Unreadable(_)));
}

#[test]
fn refuses_links_out_of_the_folder() {
    let outside = folder(&[("scheme/a.cedar", b"secret")]);
    for (target, link) in [("scheme/a.cedar", "scheme/b.cedar"), ("scheme", "country")] {
        let folder = folder(&[("scheme/a.cedar", b"")]);
        unix::fs::symlink(outside.path().join(target), folder.path().join(link)).unwrap();
        assert_eq!(problem(folder.path()), (link.to_owned(), Problem::LinksOut));
    }
    let circle = folder(&[("scheme/a.cedar", b"")]);
    unix::fs::symlink(circle.path(), circle.path().join("agency")).unwrap();
    assert!(read_folder(circle.path()).is_err());
}

#[test]
fn a_check_reports_or_refuses() {
    let good =
        folder(&[("scheme/a.cedar", annotated("a", "permit (principal, action, resource);").as_bytes())]);
    let report = check(good.path()).unwrap();
    assert_eq!((report.layers, report.policies, report.tests), (vec!["scheme".to_owned()], 1, 0));
    assert_eq!(report.hash, report.scheme_hash);
    assert!(check(folder(&[("scheme/a.cedar", b"permit")]).path()).is_err());
}
