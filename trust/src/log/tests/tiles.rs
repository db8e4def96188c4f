use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn tile(path: &str) -> Tile {
    path.parse().unwrap()
}

/// The example of tlog-tiles, and the edges around it.
#[test]
fn paths() {
    for (path, level, index, width) in [
        ("tile/0/x001/x234/067", 0, 1_234_067, 256),
        ("tile/0/000", 0, 0, 256),
        ("tile/63/999.p/1", 63, 999, 1),
        ("tile/1/x001/000.p/255", 1, 1000, 255),
        ("tile/7/x036/x028/x797/x018/x963/967", 7, (1 << 55) - 1, 256),
    ] {
        let tile = Tile::new(level, index, width).unwrap();
        assert_eq!(tile.to_string(), path);
        assert_eq!(path.parse(), Ok(tile));
    }
    for path in [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/256/000",
        "tile/-1/000",
        "tile/entries/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/x001/x000",
        "tile/0/+01",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/1.p/1",
        "tile/0/000.p/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/8/0/000",
        "tile/7/x036/x028/x797/x018/x963/968",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(path.parse::<Tile>(), Err(PathError), "{path}");
    }
    assert_eq!(EntryBundle::new(1_234_067, 7).unwrap().to_string(), "tile/entries/x001/x234/067.p/7");
    assert_eq!(
        "tile/entries/x001/x234/067.p/7".parse(),
        EntryBundle::new(1_234_067, 7).map_err(|_| PathError)
    );
    assert_eq!("tile/0/000".parse::<EntryBundle>(), Err(PathError));
    for (level, index, width) in [(64, 0, 1), (0, 1 << 55, 1), (0, 0, 0), (0, 0, 257)] {
        assert_eq!(Tile::new(level, index, width), Err(TileError::Coordinates));
    }
    assert_eq!(EntryBundle::new(0, 0), Err(TileError::Coordinates));
}

/// The examples of tlog-tiles, of 70,000 and 256 leaves.
#[test]
fn tiles_of_a_size() {
    let tiles: Vec<Tile> = new_tiles(0, 70_000).collect();
    assert_eq!(tiles.len(), 273 + 1 + 1 + 1 + 1);
    assert_eq!(tiles.iter().filter(|tile| tile.level() == 0 && tile.is_full()).count(), 273);
    let rest: Vec<String> = tiles[273..].iter().map(Tile::to_string).collect();
    assert_eq!(rest, ["tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]);
    let tiles: Vec<String> = new_tiles(0, 256).map(|tile| tile.to_string()).collect();
    assert_eq!(tiles, ["tile/0/000", "tile/1/000.p/1"]);
    let tiles: Vec<String> = new_tiles(255, 257).map(|tile| tile.to_string()).collect();
    assert_eq!(tiles, ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]);
    let bundles: Vec<String> = new_bundles(255, 257).map(|bundle| bundle.to_string()).collect();
    assert_eq!(bundles, ["tile/entries/000", "tile/entries/001.p/1"]);
    assert_eq!(new_tiles(257, 257).chain(new_tiles(257, 3)).count(), 0);
    assert_eq!(new_bundles(257, 3).count(), 0);
    assert_eq!(new_tiles(MAX_SIZE - 1, MAX_SIZE).count(), 1);
    assert_eq!(new_tiles((1 << 62) - 1, 1 << 62).count(), 8);
}

#[test]
fn the_tile_of_a_node() {
    let of = |level, index, size| Tile::holding(Node { level, index }, size).map(|tile| tile.to_string());
    assert_eq!(of(0, 0, 1).as_deref(), Some("tile/0/000.p/1"));
    assert_eq!(of(0, 0, 0), None);
    assert_eq!(of(7, 1, 255), None);
    assert_eq!(of(7, 1, 256).as_deref(), Some("tile/0/000"));
    assert_eq!(of(8, 0, 70_000).as_deref(), Some("tile/1/000"));
    assert_eq!(of(8, 272, 70_000).as_deref(), Some("tile/1/001.p/17"));
    assert_eq!(of(16, 0, 70_000).as_deref(), Some("tile/2/000.p/1"));
    assert_eq!(of(62, 0, MAX_SIZE).as_deref(), Some("tile/7/000.p/127"));
    assert_eq!(of(64, 0, u64::MAX), None);
    assert_eq!(of(255, u64::MAX, u64::MAX), None);
}

#[test]
fn a_tile_has_the_bytes_of_its_width() {
    let mut tiles = TileHashes::new();
    let partial = tile("tile/0/000.p/2");
    for bytes in [0, 63, 65, 96] {
        let refused = Err(TileError::Content { expected: 64, got: bytes });
        assert_eq!(tiles.insert(partial, &vec![0; bytes]), refused);
    }
    assert_eq!(tiles.hash(Node::leaf(0)), None);
    tiles.insert(partial, &[7; 64]).unwrap();
    // A narrower tile that comes later takes nothing away.
    tiles.insert(tile("tile/0/000.p/1"), &[7; 32]).unwrap();
    assert_eq!(tiles.hash(Node::leaf(1)), Some(Digest([7; 32])));
    assert_eq!(tiles.hash(Node { level: 1, index: 0 }), Some(node_hash(&Digest([7; 32]), &Digest([7; 32]))));
    assert_eq!(tiles.hash(Node::leaf(2)), None);
    assert_eq!(tiles.hash(Node { level: 2, index: 0 }), None);
    assert_eq!(tiles.hash(Node { level: 64, index: 0 }), None);
    assert_eq!(tiles.hash(Node { level: 255, index: u64::MAX }), None);
    assert_eq!(tile("tile/9/000").nodes().count(), 0);
    assert_eq!(tile("tile/7/x036/x028/x797/x018/x963/967").nodes().count(), 256);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What a log keeps is what it writes while it grows, and from that alone it gives every proof.
    #[test]
    fn a_growing_log_lives_in_its_tiles(
        steps in proptest::collection::vec(prop_oneof![1..5_u64, 1..600_u64], 1..12),
        places in any::<[proptest::sample::Index; 8]>(),
    ) {
        let size = steps.iter().sum();
        let nodes = nodes(entries(size));
        let hash = |node| nodes.get(&node).copied();
        let mut written: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut old = 0;
        for step in steps {
            for tile in new_tiles(old, old + step) {
                written.insert(tile.to_string(), tile.content(hash).unwrap());
            }
            old += step;
        }
        let read = |needed: Vec<Node>| {
            let needed: BTreeSet<_> = needed.into_iter().map(|node| Tile::holding(node, size).unwrap()).collect();
            let mut tiles = TileHashes::new();
            for tile in needed {
                tiles.insert(tile, &written[&tile.to_string()]).unwrap();
            }
            tiles
        };
        let tiles = read(root_nodes(size));
        prop_assert_eq!(root(size, |node| tiles.hash(node)), root(size, hash));
        for place in places {
            let index = place.index(size as usize) as u64;
            let tiles = read(inclusion_nodes(index, size).unwrap());
            prop_assert_eq!(inclusion(index, size, |node| tiles.hash(node)), inclusion(index, size, hash));
            let tiles = read(consistency_nodes(index, size).unwrap());
            prop_assert_eq!(consistency(index, size, |node| tiles.hash(node)), consistency(index, size, hash));
        }
    }

    #[test]
    fn every_tile_has_its_path(level in 0..=63_u8, index in 0..1_u64 << 55, width in 1..=256_u16) {
        let tile = Tile::new(level, index, width).unwrap();
        prop_assert_eq!(tile.to_string().parse(), Ok(tile));
    }
}
