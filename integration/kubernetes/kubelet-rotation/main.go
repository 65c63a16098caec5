// The kubelet's own rotation of container logs over the files of a log writer that no kubelet started.
//
// Renaming, compressing, removing and the order of these steps are Kubernetes' code (pkg/kubelet/logs); only the container
// runtime is ours. It is told of containers by files in a folder:
//
//	ID.json    a running container: {"log": path of its live file, "control": conmon's control pipe}
//	ID.remove  the container is to be removed with all its logs and its pod's folder; both files go when that is done
//
// Each reopened log is told in a line on standard output: "reopened ID".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/logs"
)

const (
	reopenWithin = 10 * time.Second
	lookEvery    = 50 * time.Millisecond
)

func main() {
	folder := flag.String("containers", "", "folder with a file for each container")
	maxSize := flag.String("max-size", "300Ki", "containerLogMaxSize")
	maxFiles := flag.Int("max-files", 5, "containerLogMaxFiles")
	workers := flag.Int("workers", 1, "containerLogMaxWorkers")
	interval := flag.Duration("interval", time.Second, "containerLogMonitorInterval")
	flag.Parse()

	node := &runtime{folder: *folder}
	manager, err := logs.NewContainerLogManager(
		node, kubecontainer.RealOS{}, *maxSize, *maxFiles, *workers, metav1.Duration{Duration: *interval})
	if err != nil {
		log.Fatal(err)
	}
	manager.Start()
	for range time.Tick(lookEvery) {
		if err := node.remove(manager); err != nil {
			log.Print(err)
		}
	}
}

// container is what a container's file says.
type container struct {
	Log     string `json:"log"`
	Control string `json:"control"`
}

// runtime answers those calls of the container runtime interface that rotation makes; others are not there.
type runtime struct {
	internalapi.RuntimeService
	folder string
}

// ListContainers names all containers that run.
func (r *runtime) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	paths, err := filepath.Glob(filepath.Join(r.folder, "*.json"))
	if err != nil {
		return nil, err
	}
	var found []*runtimeapi.Container
	for _, path := range paths {
		found = append(found, &runtimeapi.Container{
			Id:    strings.TrimSuffix(filepath.Base(path), ".json"),
			State: runtimeapi.ContainerState_CONTAINER_RUNNING,
		})
	}
	return found, nil
}

// ContainerStatus says where a container's log is.
func (r *runtime) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	it, err := r.read(id)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: id, LogPath: it.Log}}, nil
}

// ReopenContainerLog asks conmon for a new file, as CRI-O does, and waits until it is there.
func (r *runtime) ReopenContainerLog(_ context.Context, id string) error {
	it, err := r.read(id)
	if err != nil {
		return err
	}
	// Nobody reads the pipe of a conmon that has ended: the open fails.
	control, err := os.OpenFile(it.Control, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("container is not running: %w", err)
	}
	defer control.Close()
	if _, err := control.WriteString("2 0 0\n"); err != nil {
		return fmt.Errorf("ask conmon to reopen: %w", err)
	}
	for end := time.Now().Add(reopenWithin); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(it.Log); err == nil {
			fmt.Println("reopened", id)
			return nil
		}
	}
	return errors.New("conmon made no new log")
}

// remove does what the kubelet does with containers of a deleted pod, and then with the pod's folder.
func (r *runtime) remove(manager logs.ContainerLogManager) error {
	paths, err := filepath.Glob(filepath.Join(r.folder, "*.remove"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		id := strings.TrimSuffix(filepath.Base(path), ".remove")
		it, err := r.read(id)
		if err != nil {
			return err
		}
		if err := manager.Clean(context.Background(), id); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Dir(filepath.Dir(it.Log))); err != nil {
			return err
		}
		if err := errors.Join(os.Remove(r.file(id)), os.Remove(path)); err != nil {
			return err
		}
	}
	return nil
}

func (r *runtime) read(id string) (container, error) {
	var it container
	text, err := os.ReadFile(r.file(id))
	if err != nil {
		return it, fmt.Errorf("container %s: %w", id, err)
	}
	return it, json.Unmarshal(text, &it)
}

func (r *runtime) file(id string) string {
	return filepath.Join(r.folder, id+".json")
}
