use super::*;

fn file(block: u32) -> Node {
    Node::File(Extent { block, len: 1 })
}

fn folder() -> Node {
    Node::Folder(Folder::default())
}

fn put(tree: &mut Tree, path: &str, node: Node) {
    tree.put(path.as_bytes(), Meta::default(), node).unwrap();
}

/// All paths of the tree, in order.
fn paths(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), ROOT)];
    while let Some((path, id)) = pending.pop() {
        let Node::Folder(folder) = &tree.inode(id).node else { continue };
        for (name, entry) in &folder.entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            found.push(path.clone());
            pending.push((path, entry.inode));
        }
    }
    found.sort();
    found
}

#[test]
fn whiteouts_reach_lower_layers_only() {
    let mut tree = Tree::default();
    tree.begin_layer();
    put(&mut tree, "etc/a", file(1));
    put(&mut tree, "etc/b", file(2));
    put(&mut tree, "var/lib/x", file(3));
    put(&mut tree, "var/log/y", file(4));
    tree.begin_layer();
    put(&mut tree, "etc/c", file(5));
    tree.white_out(b"etc", b"a").unwrap();
    tree.white_out(b"etc", b"c").unwrap();
    tree.white_out(b"no/such", b"folder").unwrap();
    put(&mut tree, "var/lib/new", file(6));
    tree.white_out_all(b"var").unwrap();
    assert_eq!(paths(&tree), ["/etc", "/etc/b", "/etc/c", "/var", "/var/lib", "/var/lib/new"]);
    let dead: Vec<u32> = tree.take_dead().iter().map(|extent| extent.block).collect();
    assert_eq!(dead, [1, 3, 4]);
}

#[test]
fn kinds_replace_each_other_and_folders_keep_their_entries() {
    let mut tree = Tree::default();
    tree.begin_layer();
    put(&mut tree, "a/b", file(1));
    tree.begin_layer();
    put(&mut tree, "a", folder());
    assert_eq!(paths(&tree), ["/a", "/a/b"]);
    put(&mut tree, "a", file(2));
    assert_eq!(paths(&tree), ["/a"]);
    put(&mut tree, "a", folder());
    assert_eq!(tree.take_dead().len(), 2);
    put(&mut tree, "link", Node::Symlink(b"a".to_vec()));
    put(&mut tree, "link", folder());
    put(&mut tree, "link/x", file(3));
    assert_eq!(paths(&tree), ["/a", "/link", "/link/x"], "a folder replaces a link");
}

#[test]
fn hard_links_share_and_outlive() {
    let mut tree = Tree::default();
    tree.begin_layer();
    put(&mut tree, "a", file(1));
    tree.link(b"b", b"a").unwrap();
    tree.link(b"b", b"a").unwrap();
    tree.begin_layer();
    tree.link(b"c", b"./b").unwrap();
    tree.white_out(b"", b"a").unwrap();
    assert_eq!(paths(&tree), ["/b", "/c"]);
    assert!(tree.take_dead().is_empty());
    put(&mut tree, "b", file(2));
    tree.white_out(b"", b"c").unwrap();
    assert_eq!(paths(&tree), ["/b", "/c"], "the link is of this layer");
    assert_eq!(tree.link(b"x", b"nothing"), Err(PathError::NoTarget));
    assert_eq!(tree.link(b"x", b"../etc/passwd"), Err(PathError::DotDot));
    put(&mut tree, "folder", folder());
    assert_eq!(tree.link(b"x", b"folder"), Err(PathError::FolderTarget));
    tree.link(b"folder", b"c").unwrap();
    put(&mut tree, "up", Node::Symlink(b"../../etc".to_vec()));
    assert_eq!(tree.link(b"x", b"up/passwd"), Err(PathError::Escape));
}

#[test]
fn symlinks_on_the_way_stay_inside() {
    let mut tree = Tree::default();
    tree.begin_layer();
    put(&mut tree, "usr/lib", folder());
    put(&mut tree, "lib", Node::Symlink(b"usr/lib".to_vec()));
    put(&mut tree, "abs", Node::Symlink(b"/usr".to_vec()));
    put(&mut tree, "usr/back", Node::Symlink(b"../lib".to_vec()));
    put(&mut tree, "lib/a", file(1));
    put(&mut tree, "abs/back/b", file(2));
    assert!(paths(&tree).contains(&"/usr/lib/b".to_owned()), "{:?}", paths(&tree));
    put(&mut tree, "out", Node::Symlink(b"../../..".to_vec()));
    put(&mut tree, "self", Node::Symlink(b"self".to_vec()));
    let refused = |tree: &mut Tree, path: &str| tree.put(path.as_bytes(), Meta::default(), file(9));
    let long = "a/".repeat(3000);
    let deep = "a/".repeat(1000);
    let name = "n".repeat(256);
    let table = [
        ("../a", PathError::DotDot),
        ("a/../../b", PathError::DotDot),
        ("/etc/passwd", PathError::Absolute),
        ("out/etc/passwd", PathError::Escape),
        ("self/a", PathError::Loop),
        ("lib/a/b", PathError::NotAFolder),
        ("a\0b", PathError::Zero),
        (long.as_str(), PathError::Length),
        (deep.as_str(), PathError::Depth),
        (name.as_str(), PathError::Name),
        ("./", PathError::Root),
    ];
    for (path, error) in table {
        assert_eq!(refused(&mut tree, path), Err(error), "{path:.20}");
    }
}
