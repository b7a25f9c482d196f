"""What a file's path says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.distributions import Distribution, distribution_of, is_distribution

DIGEST = "ab" * 32


class DistributionTests(SynchronousTestCase):
    def test_paths_of_ours_name_project_and_digest(self) -> None:
        expected = Distribution("zope-interface", "5.4.0", "sdist", "zope.interface-5.4.0.tar.gz", DIGEST)
        path = f"/files/zope-interface/{DIGEST}/zope.interface-5.4.0.tar.gz"
        self.assertEqual(expected, distribution_of(path.encode()))
        self.assertEqual(expected, distribution_of(b"/team" + path.encode()))

    def test_names_and_versions_of_every_type(self) -> None:
        for filename, expected in {
            "six-1.16.0-py2.py3-none-any.whl": ("six", "1.16.0", "bdist_wheel"),
            "ruamel.yaml-0.17-1-cp39-cp39-linux.whl": ("ruamel-yaml", "0.17", "bdist_wheel"),
            "zope.testing-4.9-py3.8.egg": ("zope-testing", "4.9", "bdist_egg"),
            "lxml-4.2.win32-py2.7.exe": ("lxml", "4.2", "bdist_wininst"),
            "cx_Oracle-5.1.2-1.x86_64.rpm": ("cx-oracle", "5.1.2", "bdist_rpm"),
            "python-dateutil-2.8.2.tar.gz": ("python-dateutil", "2.8.2", "sdist"),
            "foo-1.0-beta.zip": ("foo", "1.0-beta", "sdist"),
            "local-1.0%2Bcpu.tar.gz": ("local", "1.0+cpu", "sdist"),
            "nameless.tar.gz": ("nameless", "", "sdist"),
        }.items():
            found = distribution_of(b"/packages/" + filename.encode())
            self.assertEqual(expected, (found.project, found.version, found.kind), filename)

    def test_a_project_that_is_known_says_where_its_name_ends(self) -> None:
        found = distribution_of(b"/files/foo-2-bar/-/foo-2-bar-1.0-rc-1.tar.gz")
        self.assertEqual(("foo-2-bar", "1.0-rc-1", ""), (found.project, found.version, found.sha256))

    def test_metadata_signatures_and_pages_are_no_downloads(self) -> None:
        file = b"/files/a/-/a-1.0.tar.gz"
        for path in (file, b"/packages/A-1.0-py3-none-any.WHL", b"/files/a/-/a-1.0.weird"):
            self.assertTrue(is_distribution(path), path)
        for path in (
            file + b".metadata",
            file + b".asc",
            b"/x/a.whl.provenance",
            b"/simple/a/",
            b"/",
            b"/pypi/a/json",
            b"/pypi/files/json",
        ):
            self.assertFalse(is_distribution(path), path)
