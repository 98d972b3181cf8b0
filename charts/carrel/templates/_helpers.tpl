{{/* Names, labels and parts that several templates share. */}}

{{- define "carrel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "carrel.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: carrel
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Selector of one component's pods: (dict "root" $ "component" "gateway"). */}}
{{- define "carrel.selector" -}}
app.kubernetes.io/name: carrel
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The same as kubectl writes it. */}}
{{- define "carrel.selectorText" -}}
app.kubernetes.io/name=carrel,app.kubernetes.io/instance={{ .root.Release.Name }},app.kubernetes.io/component={{ .component }}
{{- end -}}

{{/* Reference of an image: (dict "root" $ "image" .Values.images.gateway). */}}
{{- define "carrel.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "carrel.gatewaySecret" -}}
{{ .Values.gateway.existingSecret | default (printf "%s-gateway" (include "carrel.fullname" .)) }}
{{- end -}}

{{- define "carrel.signingSecret" -}}
{{- $given := (index .root.Values .component).signing.existingSecret -}}
{{ $given | default (printf "%s-%s-signing" (include "carrel.fullname" .root) .component) }}
{{- end -}}

{{/* What every container of the chart runs under: the restricted Pod Security Standard, and no writable root. */}}
{{- define "carrel.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "carrel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A Secret of the type of cert-manager's: an Ed25519 key, generated once and then kept, with a certificate of its
     public half. The certificate is how the operator learns the gateway's public key without seeing the private one. */}}
{{- define "carrel.generatedSigning" -}}
{{- $name := include "carrel.signingSecret" . -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace $name -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}
  labels: {{- include "carrel.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
type: kubernetes.io/tls
data:
{{- if $old }}
  tls.key: {{ index $old.data "tls.key" }}
  tls.crt: {{ index $old.data "tls.crt" }}
{{- else }}
{{- $made := genSelfSignedCertWithKey (printf "carrel-%s" .component) nil nil 3650 (genPrivateKey "ed25519") }}
  tls.key: {{ $made.Key | b64enc }}
  tls.crt: {{ $made.Cert | b64enc }}
{{- end }}
{{- end -}}

{{/* Environment from a map of settings: names get the prefix CARREL_. */}}
{{- define "carrel.settings" -}}
{{- range $name, $value := . }}
- {name: CARREL_{{ $name | upper }}, value: {{ $value | toString | quote }}}
{{- end -}}
{{- end -}}

{{/* Where the scheduler may put a component's pods: spread over nodes unless told otherwise. */}}
{{- define "carrel.placement" -}}
{{- $values := index .root.Values .component -}}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "carrel.selector" . | nindent 8 }}
{{- end -}}

{{- /* Name of the gateway's port, which is also its scheme. */}}
{{- define "carrel.gatewayPort" -}}
{{ ternary "https" "http" (ne .Values.gateway.tls.secretName "") }}
{{- end }}
