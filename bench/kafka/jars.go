package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Version is the release of Apache Kafka that is started.
const Version = "4.3.1"

// pom names what Maven fetches.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>quorumlog</groupId><artifactId>bench-kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + Version + `</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>` + Version + `</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
`

// errNoJava and errNoMaven say how to get what is missing.
var (
	errNoJava  = errors.New("the target kafka needs Java 17 or later: install a JRE (Debian: default-jre-headless), or name a cluster with --servers")
	errNoMaven = errors.New("the target kafka needs Maven to fetch Kafka " + Version + " once: install it (Debian: maven), or name a cluster with --servers")
)

// findJars returns the directory of Kafka's jars, which are fetched once, and the java to run them with.
func findJars(ctx context.Context, say func(string, ...any)) (jars, java string, err error) {
	if java, err = exec.LookPath("java"); err != nil {
		return "", "", errNoJava
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("cannot find a place for Kafka's jars: %w", err)
	}
	jars = filepath.Join(cache, "quorumlog-bench", "kafka-"+Version)
	if _, err := os.Stat(jars); err == nil {
		return jars, java, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", "", errNoMaven
	}
	say("fetching Apache Kafka %s with Maven, once", Version)
	if err := os.MkdirAll(filepath.Dir(jars), 0o755); err != nil {
		return "", "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(jars), "fetch-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(pom), 0o644); err != nil {
		return "", "", err
	}
	command := exec.CommandContext(ctx, mvn, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs")
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("cannot fetch Kafka's jars: %w: %.500s", err, out)
	}
	return jars, java, os.Rename(filepath.Join(dir, "libs"), jars) // whole, or not at all
}
