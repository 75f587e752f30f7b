{{/* What everything is called; shorter than a name may be, for there is more behind it. */}}
{{- define "penstock.name" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- $name := contains $chart .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $chart) -}}
{{- .Values.fullnameOverride | default $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "penstock.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "penstock.name" .) -}}
{{- else -}}
{{- required "serviceAccount.name is missing, and serviceAccount.create is false; next: name the account that is there" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "penstock.image" -}}
{{- $name := required "image.repository is missing: there is no public image; next: build deploy/Containerfile, push it, and --set image.repository=REGISTRY/NAME" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* Something where there are several pods, nothing where there is one. */}}
{{- define "penstock.several" -}}
{{- if gt (int .Values.replicas) 1 }}yes{{ end -}}
{{- end }}

{{/* How the pod is found. A Deployment's cannot be changed. */}}
{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An object's metadata, here or in the *namespace* given: (dict "root" $ "name" … "namespace" … "annotations" …). */}}
{{- define "penstock.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "penstock.labels" .root | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A file of deploy/kubernetes, which the link `kubernetes` leads to: (dict "root" $ "file" "rbac.yaml"). */}}
{{- define "penstock.file" -}}
{{- $text := .root.Files.Get (printf "kubernetes/%s" .file) -}}
{{- required (printf "the chart lacks kubernetes/%s: its link to deploy/kubernetes leads nowhere; next: git config core.symlinks true, and git checkout deploy/helm; or take it from helm package" .file) $text -}}
{{- end }}
