"""Adds what pyproject.toml cannot declare: an SBOM, and a README whose links work on PyPI."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.requirements import Requirement

SBOM = "airflow-provider-forge.cdx.json"


class PyPIReadme(MetadataHookInterface):
    """Makes the README's relative links absolute, because PyPI shows it without the repository.

    They lead to the tag of the version, and therefore show the version that the reader installs.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the `readme` of the project."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, metadata["urls"]["Source"], f"v{metadata['version']}"),
        }


class Sbom(BuildHookInterface[Any]):
    """Puts a CycloneDX SBOM into the wheel's `.dist-info/sboms` (PEP 770)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Write the SBOM."""
        self._directory = tempfile.TemporaryDirectory()
        path = Path(self._directory.name, SBOM)
        path.write_text(json.dumps(bill_of_materials(self.metadata.core), indent=2) + "\n", encoding="utf-8")
        build_data["sbom_files"].append(str(path))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the file from which the wheel's was copied."""
        self._directory.cleanup()


def absolute_links(text: str, source: str, tag: str) -> str:
    """Return Markdown whose relative links lead to a tag of a repository on GitHub.

    Args:
        text: Markdown.
        source: URL of the repository.
        tag: Tag in it.
    """
    raw = source.replace("github.com", "raw.githubusercontent.com")
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:|#)", rf"\g<1>{raw}/{tag}/", text)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?!https?:|#)", rf"\g<1>{source}/blob/{tag}/", text)


def bill_of_materials(project: Any) -> dict[str, Any]:
    """Return a CycloneDX 1.7 document: the package and its declared dependencies.

    The wheel contains no code of others. Dependencies are therefore external, with the range of versions that
    pip chooses from; those of an extra are optional. The document is the same for each build of a version: it
    has no time, and its serial number is derived from the package's name and version.

    Args:
        project: The metadata, as hatchling's `CoreMetadata`.
    """
    package = f"pkg:pypi/{project.name}@{project.version}"
    components: dict[str, dict[str, Any]] = {}
    for requirement in project.dependencies:
        component = external(Requirement(requirement), "required")
        components[component["bom-ref"]] = component
    for requirements in project.optional_dependencies.values():
        for requirement in requirements:
            component = external(Requirement(requirement), "optional")
            components.setdefault(component["bom-ref"], component)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, package)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": package,
                "name": project.name,
                "version": project.version,
                "description": project.description,
                "licenses": [{"expression": project.license_expression, "acknowledgement": "declared"}],
                "purl": package,
                "externalReferences": [{"type": "vcs", "url": project.urls["Source"]}],
            }
        },
        "components": [components[reference] for reference in sorted(components)],
        "dependencies": [{"ref": package, "dependsOn": sorted(components)}],
    }


def external(requirement: Requirement, scope: str) -> dict[str, Any]:
    """Return the component of a dependency that pip installs beside the package."""
    purl = f"pkg:pypi/{requirement.name.lower()}"
    # From the lowest version to the highest, as a version range specification has to be.
    bounds = sorted(requirement.specifier, key=lambda bound: bound.operator.startswith("<"))
    versions = "|".join(str(bound) for bound in bounds) or "*"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": requirement.name,
        "purl": purl,
        "scope": scope,
        "isExternal": True,
        "versionRange": f"vers:pypi/{versions}",
    }
